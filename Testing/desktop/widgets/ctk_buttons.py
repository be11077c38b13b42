"""CTK's widgets that open and close, and its button with a menu."""

from __future__ import annotations

from PySide6.QtCore import Property, QSize, Qt, Signal
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


def _showContents(widget: QWidget, shown: bool, header: int) -> None:
    """CTK hides the children and shrinks the widget to its title."""
    for child in widget.findChildren(QWidget, options=Qt.FindDirectChildrenOnly):
        if shown and child.property("hiddenByUser") is not None:
            child.setVisible(not child.property("hiddenByUser"))
            child.setProperty("hiddenByUser", None)
        elif not shown and child.property("hiddenByUser") is None:
            child.setProperty("hiddenByUser", child.isHidden())
            child.hide()
    widget.setMaximumHeight(16777215 if shown else header)


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
        self.toggled.connect(self._toggled)

    def _toggled(self, opened: bool) -> None:
        _showContents(self, opened, _HEADER)
        self.contentsCollapsed.emit(not opened)

    collapsed = Property(
        bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value)
    )

    def sizeHint(self) -> QSize:
        width = self.fontMetrics().horizontalAdvance(self.text()) + 2 * _HEADER
        below = self.layout().sizeHint() if self.layout() and self.isChecked() else QSize(0, _HEADER)
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
        self.toggled.connect(lambda opened: _showContents(self, opened, _HEADER))

    collapsed = Property(
        bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value)
    )


class ctkMenuButton(QPushButton):  # noqa: N801
    """A push button with a menu beside it."""


class ctkExpandableWidget(QFrame):  # noqa: N801
    """A frame that a person can make larger."""
