"""The application's main window: the chosen module's panel and, where they can be drawn, the views beside it."""

from __future__ import annotations

import slicer
from PySide6.QtCore import Property, QRect, Qt
from PySide6.QtGui import QImage, QPainter
from PySide6.QtWidgets import QHBoxLayout, QMainWindow, QScrollArea, QToolBar, QWidget

from desktop import views
from desktop.widgets import unwrap, wrap

_SIZE = (1280, 860)
_PANEL_WIDTH = 470
_VIEWS = (800, 800)


class qSlicerMainWindow(QMainWindow):  # noqa: N801 (the application's name)
    """Found by its object name, as `slicer.util.mainWindow()` does."""

    knownToPython = True

    def __init__(self):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.resize(*_SIZE)
        self._panel = QScrollArea()
        self._panel.setWidgetResizable(True)
        self._panel.setFixedWidth(_PANEL_WIDTH)
        self._panel.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        centre = QWidget()
        row = QHBoxLayout(centre)
        row.addWidget(self._panel)
        self._manager = None if views.missing() else ShownViews(slicer.mrmlScene, _VIEWS)
        if self._manager is not None:
            slicer.app.setLayoutManager(self._manager)
            row.addWidget(unwrap(self._manager.viewport()), 1)
        self.setCentralWidget(centre)
        self._selector = qSlicerModuleSelectorToolBar(self)
        self.addToolBar(self._selector)

    def moduleSelector(self):
        return self._selector

    def showModule(self, widget):
        """Put a module's widget into the panel; the one before is kept."""
        previous = self._panel.takeWidget()
        if previous is not None:
            previous.hide()
        self._panel.setWidget(widget)
        widget.show()

    def end(self):
        """Release the views before the application goes."""
        if self._manager is not None:
            self._manager.close()


class qSlicerModuleSelectorToolBar(QToolBar):  # noqa: N801
    """Where a user chooses a module."""

    knownToPython = True

    def __init__(self, window):
        super().__init__(window)
        self._window = window
        self._module = None

    def selectModule(self, name):
        if self._module is not None:
            unwrap(self._module.widgetRepresentation()).exit()
        self._module = slicer.util.getModule(name)
        widget = unwrap(self._module.widgetRepresentation())
        self._window.showModule(widget)
        widget.enter()

    selectedModule = Property(str, lambda self: self._module.name if self._module is not None else "")


class ShownViews(views.LayoutManager):
    """The views with a widget that shows them."""

    tableViewCount = plotViewCount = 0

    def __init__(self, scene, size):
        self._viewport = _Viewport(self)
        super().__init__(scene, size)

    def viewport(self):
        return wrap(self._viewport)

    def sliceWidget(self, name):
        return _Widget(super().sliceWidget(name), self._viewport)

    def threeDWidget(self, index):
        return _Widget(super().threeDWidget(index), self._viewport)


class _Widget:
    """A view's widget: asked to render, it makes the viewport draw anew."""

    def __init__(self, view, viewport):
        self._view, self._viewport = view, viewport

    def __getattr__(self, name):
        return getattr(self._view, name)

    def sliceView(self):
        return self

    threeDView = sliceView

    def forceRender(self):
        self._viewport.stale = True
        self._viewport.update()


class _Viewport(QWidget):
    """Draws the views' picture, new only when a view was asked to render."""

    def __init__(self, manager):
        super().__init__()
        self.setFixedSize(*_VIEWS)
        self._manager = manager
        self._picture = QImage()
        self.stale = False

    def paintEvent(self, _event):
        if self.stale:
            self.stale = False
            pixels = self._manager.layoutImage()
            height, width, _ = pixels.shape
            self._picture = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format_RGB888).copy()
        painter = QPainter(self)
        painter.drawImage(QRect(0, 0, *_VIEWS), self._picture)
        painter.end()
