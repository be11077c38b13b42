"""Loads a .ui file as the application does, and refuses what the application would skip."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from PySide6 import QtUiTools
from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QObject, QtMsgType, qInstallMessageHandler

from .proxy import unwrap, wrap
from .qapplication import application
from .signals import complaints
from .ui_check import problems


class UiError(ValueError):
    """A .ui file that the application would not load as it is written."""


class _Loader(QtUiTools.QUiLoader):
    """Makes the stand-ins under their real class names."""

    def createWidget(self, name, parent=None, objectName=""):
        from .catalogue import STAND_INS

        if name not in STAND_INS:
            return super().createWidget(name, parent, objectName)
        widget = STAND_INS[name](parent)
        widget.setObjectName(objectName)
        return widget


class QUiLoader:
    """`qt.QUiLoader`, as far as `slicer.util.loadUI` uses it."""

    def load(self, file, parent=None):
        if parent is not None:
            raise TypeError("the stand-in of QUiLoader loads widgets without a parent")
        return loadUI(unwrap(file).fileName())


def loadUI(path):
    """The proxy of a file's top widget, with its connections made; UiError lists everything that is wrong."""
    application()
    tree = ElementTree.parse(path)
    root = tree.getroot()
    found = problems(root)
    if found:
        raise UiError(f"{path}: " + "; ".join(found))
    connections = root.findall("connections/connection")
    for element in root.findall("connections"):
        root.remove(element)
    enumerations = _takeEnumerations(root)
    widget = wrap(_load(root, path))
    for name, key, words in enumerations:
        setattr(_named(widget, name), key, _flags(words))
    _connect(widget, connections, path)
    return widget


def _load(root: ElementTree.Element, path) -> QObject:
    """The widgets of Qt's own loader; its warnings are errors."""
    warnings: list[str] = []
    previous = qInstallMessageHandler(
        lambda kind, _context, text: warnings.append(text) if kind != QtMsgType.QtDebugMsg else None
    )
    try:
        buffer = QBuffer()
        buffer.setData(QByteArray(ElementTree.tostring(root)))
        buffer.open(QIODevice.ReadOnly)
        loader = _Loader()
        loader.setWorkingDirectory(_folder(path))
        widget = loader.load(buffer)
    finally:
        qInstallMessageHandler(previous)
    if warnings or widget is None:
        raise UiError(f"{path}: {'; '.join(warnings) or loader.errorString()}")
    return widget


def _folder(path):
    from PySide6.QtCore import QDir

    return QDir(str(Path(path).resolve().parent))


def _takeEnumerations(root: ElementTree.Element) -> list[tuple[str, str, str]]:
    """Flags of the stand-ins, which Qt's loader cannot look up: taken out of the file, set afterwards."""
    from .catalogue import STAND_INS

    taken = []
    for element in root.iter("widget"):
        own = [
            p for p in element.findall("property") if p.find("set") is not None or p.find("enum") is not None
        ]
        for item in own:
            words = item[0].text or ""
            if element.get("class") in STAND_INS and not words.startswith(("Qt::", "QFrame::")):
                element.remove(item)
                taken.append((element.get("name"), item.get("name"), words))
    return taken


def _named(widget, name: str):
    return widget if widget.name == name else widget.findChild(QObject, name)


def _flags(words: str):
    """`A::x|A::y` as a value of those classes."""
    from .catalogue import CTK, MRML, qtNames

    value = None
    for word in words.split("|"):
        owner, _, name = word.rpartition("::")
        cls = (CTK | MRML | qtNames())[owner.split("::")[0]]
        flag = getattr(cls, name)
        value = flag if value is None else value | flag
    return value


def _connect(widget, connections: list[ElementTree.Element], path) -> None:
    """Makes the file's connections, through the proxies, so that signals and slots are the application's."""
    before = len(complaints)
    for connection in connections:
        sender, signal, receiver, slot = (
            connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")
        )
        ends = [_named(widget, name) for name in (sender, receiver)]
        if None in ends:
            raise UiError(
                f"{path}: a connection from {sender} to {receiver} names a widget that is not there"
            )
        ends[0].connect(signal, ends[1], slot)
    wrong = complaints[before:]
    if wrong:
        del complaints[before:]
        raise UiError(f"{path}: " + "; ".join(wrong))


def grab(widget, path) -> None:
    """Save what a widget looks like as PNG."""
    real = unwrap(widget)
    real.ensurePolished()
    application().processEvents()
    if not real.grab().save(str(path), "PNG"):
        raise OSError(f"the picture of {widget!r} could not be written to {path}")
