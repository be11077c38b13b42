"""CTK's widgets that open and close, and its button with a menu."""

from __future__ import annotations

import shiboken6
from PySide6.QtCore import Property, QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import (
    QAbstractButton,
    QFrame,
    QGroupBox,
    QPushButton,
    QStyle,
    QStyleOptionButton,
    QWidget,
)

_HEADER = 24  # pixels of the title that stays when the contents are closed
_UNLIMITED = 16777215  # Qt's largest height


class _Contents(QObject):
    """Hides a widget's children while it is closed, those that come later as well, and shows them again."""

    def __init__(self, widget: QWidget):
        super().__init__(widget)
        self._widget = widget
        self._shownAgain: list[QWidget] = []
        self._closed = False
        widget.installEventFilter(self)

    def close(self, closed: bool) -> None:
        if closed == self._closed:
            return
        self._closed = closed
        if closed:
            children = self._widget.findChildren(QWidget, options=Qt.FindDirectChildrenOnly)
            for child in children:
                self._hide(child)
        else:
            for child in self._shownAgain:
                if shiboken6.isValid(child):
                    child.show()
            self._shownAgain = []
        self._widget.setMaximumHeight(_HEADER if closed else _UNLIMITED)
        self._widget.updateGeometry()

    def _hide(self, child: QWidget) -> None:
        if not child.isHidden():
            self._shownAgain.append(child)
            child.hide()

    def eventFilter(self, _widget, event) -> bool:
        if self._closed and event.type() == QEvent.ChildPolished and isinstance(event.child(), QWidget):
            self._hide(event.child())
        return False


class ctkCollapsibleButton(QAbstractButton):  # noqa: N801 (the application's name)
    """A section of a panel: a title to click and the widgets below it."""

    contentsCollapsed = Signal(bool)

    def __init__(self, *arguments):
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(arguments[-1] if arguments and not isinstance(arguments[-1], str) else None)
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER, 0, 0)
        self._contents = _Contents(self)
        self.toggled.connect(self._toggled)

    def _toggled(self, opened: bool) -> None:
        self._contents.close(not opened)
        self.contentsCollapsed.emit(not opened)

    collapsed = Property(
        bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value)
    )

    def sizeHint(self) -> QSize:
        width = self.fontMetrics().horizontalAdvance(self.text()) + 2 * _HEADER
        below = self.layout().totalSizeHint() if self.layout() and self.isChecked() else QSize(0, _HEADER)
        return QSize(max(width, below.width()), max(below.height(), _HEADER))

    minimumSizeHint = sizeHint

    def hitButton(self, position) -> bool:
        return position.y() < _HEADER

    def paintEvent(self, _event) -> None:
        painter = QPainter(self)
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(_HEADER)
        option.state |= QStyle.State_Raised
        self.style().drawControl(QStyle.CE_PushButtonBevel, option, painter, self)
        arrow = "\u25be" if self.isChecked() else "\u25b8"
        painter.drawText(
            option.rect.adjusted(8, 0, 0, 0), Qt.AlignVCenter | Qt.AlignLeft, f"{arrow}  {self.text()}"
        )


class ctkCollapsibleGroupBox(QGroupBox):  # noqa: N801
    """A group box whose check mark opens and closes it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.setCheckable(True)
        self._contents = _Contents(self)
        self.toggled.connect(lambda opened: self._contents.close(not opened))

    collapsed = Property(
        bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value)
    )


class ctkMenuButton(QPushButton):  # noqa: N801
    """A push button with a menu beside it."""


class ctkExpandableWidget(QFrame):  # noqa: N801
    """A frame that a person can make larger."""
