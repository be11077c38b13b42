"""Which classes `qt`, `ctk` and `slicer` offer."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from . import ctk_buttons, ctk_inputs, ctk_numbers, mrml_selectors, mrml_views, node_combo_box
from .modal import QDesktopServices
from .proxy import proxyClass

# fmt: off
# Not recorded; their names are Qt's own.
_OBJECTS = [
    "QAbstractButton", "QAbstractItemView", "QActionGroup", "QApplication", "QBoxLayout", "QButtonGroup",
    "QDialogButtonBox", "QFile", "QFileDialog", "QFrame", "QGridLayout", "QHBoxLayout", "QHeaderView",
    "QInputDialog", "QItemSelectionModel", "QLayout", "QMainWindow", "QObject", "QProgressDialog",
    "QScrollArea", "QScrollBar",
    "QShortcut", "QSplitter", "QStackedWidget", "QStandardItemModel", "QToolBar", "QTreeWidget",
    "QWidgetAction",
]
# No QObjects: PythonQt has no properties for them, so that PySide6 behaves alike.
_VALUES = [
    "Qt", "QBrush", "QByteArray", "QColor", "QCursor", "QDate", "QDateTime", "QDir", "QEvent", "QFileInfo",
    "QFont", "QFontMetrics", "QIcon", "QImage", "QKeySequence", "QListWidgetItem",
    "QLocale", "QModelIndex", "QPainter", "QPalette", "QPen", "QPixmap", "QPoint", "QPointF", "QRect", "QRectF",
    "QSize", "QSizeF", "QSizePolicy", "QSpacerItem", "QStandardItem", "QStandardPaths", "QStyle", "QSysInfo",
    "QTableWidgetItem", "QToolTip", "QTreeWidgetItem", "QUrl",
]
# fmt: on

CTK = {
    cls.__name__: cls
    for module in (ctk_buttons, ctk_inputs, ctk_numbers)
    for cls in vars(module).values()
    if isinstance(cls, type) and cls.__name__.startswith("ctk")
}
MRML = {
    cls.__name__: cls
    for module in (mrml_selectors, mrml_views, node_combo_box, ctk_numbers)
    for cls in vars(module).values()
    if isinstance(cls, type) and cls.__name__.startswith("qMRML")
}
STAND_INS = CTK | MRML


def _inQt(name: str):
    for module in (QtWidgets, QtGui, QtCore):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)


def qtNames() -> dict:
    """What `import qt` offers."""
    from .api import recordedClasses
    from .loader import QUiLoader

    recorded = [name for name in recordedClasses() if name.startswith("Q")]
    names = {name: proxyClass(_inQt(name)) for name in recorded + _OBJECTS}
    names.update({name: _inQt(name) for name in _VALUES})
    return names | {"QDesktopServices": QDesktopServices, "QUiLoader": QUiLoader}


def ctkNames() -> dict:
    """What `import ctk` offers."""
    return {name: proxyClass(cls) for name, cls in CTK.items()}


def install(slicer) -> None:
    """Put the qMRML classes on the `slicer` module, as the application does."""
    for name, cls in MRML.items():
        setattr(slicer, name, proxyClass(cls))
