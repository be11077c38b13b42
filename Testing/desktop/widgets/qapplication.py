"""The one QApplication: off-screen where there is no display, with the same look and letters on every machine."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PySide6.QtCore import QSettings
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication

_kept: list[QApplication] = []  # it must outlive every widget


def application() -> QApplication:
    """The running application, made on first use."""
    if not _kept:
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        app = QApplication.instance() or QApplication(["Slicer"])
        app.setQuitOnLastWindowClosed(False)
        _look(app)
        _ownSettings(app)
        _kept.append(app)
    return _kept[0]


def _ownSettings(app: QApplication) -> None:
    """Settings go to a folder of this process, never to the user's."""
    folder = tempfile.mkdtemp(prefix="slicer-settings-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    QSettings.setDefaultFormat(QSettings.IniFormat)
    QSettings.setPath(QSettings.IniFormat, QSettings.UserScope, folder)
    QSettings.setPath(QSettings.IniFormat, QSettings.SystemScope, folder)
    app.setOrganizationName("slicer.org")
    app.setApplicationName("Slicer")


def _look(app: QApplication) -> None:
    """Slicer's light look: Fusion on neutral greys; matplotlib brings letters where it is installed."""
    app.setStyle("Fusion")
    palette = QPalette(QColor(239, 239, 239))
    palette.setColor(QPalette.Base, QColor(255, 255, 255))
    palette.setColor(QPalette.Highlight, QColor(48, 140, 198))
    app.setPalette(palette)
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return
    for file in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        QFontDatabase.addApplicationFont(str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / file))
    app.setFont(QFont("DejaVu Sans", 9))
