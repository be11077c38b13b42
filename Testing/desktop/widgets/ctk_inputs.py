"""CTK's choices and paths."""

from __future__ import annotations

from PySide6.QtCore import Property, QDir, QModelIndex, Qt, Signal
from PySide6.QtWidgets import QComboBox, QLineEdit, QToolButton, QWidget

from .ctk_numbers import inRow
from .stored import forwarded, stored


class ctkComboBox(QComboBox):  # noqa: N801
    """A combo box with a text for "nothing chosen"."""

    defaultText = Property(str, QComboBox.placeholderText, QComboBox.setPlaceholderText)

    def currentUserDataAsString(self) -> str:
        return str(self.currentData() or "")

    currentUserDataAsString = Property(
        str, currentUserDataAsString, lambda self, text: self.setCurrentIndex(self.findData(text))
    )


class ctkCheckableComboBox(QComboBox):  # noqa: N801
    """A combo box whose entries carry check marks."""

    checkedIndexesChanged = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self.model().rowsInserted.connect(self._checkable)
        self.model().dataChanged.connect(self._changed)
        self._ready = True

    _ready = False

    def _checkable(self, _parent, first: int, last: int) -> None:
        self._ready = False
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)
            if item.data(Qt.CheckStateRole) is None:
                item.setCheckState(Qt.Unchecked)
        self._ready = True

    def _changed(self, _first, _last, roles) -> None:
        if self._ready and Qt.CheckStateRole in roles:
            self.checkedIndexesChanged.emit()

    def checkableModel(self):
        return self.model()

    def checkedIndexes(self) -> list[QModelIndex]:
        indexes = [self.model().index(row, 0) for row in range(self.count())]
        return [index for index in indexes if self.checkState(index) == Qt.Checked]

    def checkState(self, index: QModelIndex) -> Qt.CheckState:
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index: QModelIndex, state: Qt.CheckState) -> None:
        self.model().itemFromIndex(index).setCheckState(state)

    def initStyleOption(self, option) -> None:
        """The closed box shows the names with a check mark."""
        super().initStyleOption(option)
        checked = self.checkedIndexes()
        if checked:
            option.currentText = ", ".join(index.data() for index in checked)

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count()

    def noneChecked(self) -> bool:
        return not self.checkedIndexes()


class ctkPathLineEdit(QWidget):  # noqa: N801
    """A path to type or to browse for."""

    Files = QDir.Files
    Dirs = QDir.Dirs
    Drives = QDir.Drives
    Readable = QDir.Readable
    Writable = QDir.Writable
    Executable = QDir.Executable
    Hidden = QDir.Hidden
    NoDotAndDotDot = QDir.NoDotAndDotDot

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    label = stored(str, "")
    settingKey = stored(str, "")
    nameFilters = stored("QStringList", [])
    filters = stored(object, QDir.AllEntries | QDir.NoDotAndDotDot)
    showHistoryButton = stored(bool, True)

    def __init__(self, *arguments):
        super().__init__(arguments[-1] if len(arguments) in (1, 4) else None)
        self._valid = False
        self._edit = QLineEdit(self)
        self._edit.textChanged.connect(self._pathChanged)
        self._button = QToolButton(self)
        self._button.setText("...")
        self._button.clicked.connect(self.browse)
        inRow(self, self._edit, self._button)

    def _pathChanged(self, path: str) -> None:
        """CTK's validator wants at least one character: an emptied line tells only that it is not valid any more."""
        if path:
            self.currentPathChanged.emit(path)
        if bool(path) != self._valid:
            self._valid = bool(path)
            self.validInputChanged.emit(self._valid)

    currentPath = forwarded(str, "_edit", "text")
    showBrowseButton = Property(
        bool, lambda self: not self._button.isHidden(), lambda self, on: self._button.setVisible(on)
    )

    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)

    def addCurrentPathToHistory(self) -> None:
        """The application keeps typed paths in its settings; nothing shows it in a test."""

    def browse(self) -> None:
        import qt

        choose = (
            qt.QFileDialog.getOpenFileName
            if self.filters & QDir.Files
            else qt.QFileDialog.getExistingDirectory
        )
        path = choose(None, self.label, self.currentPath)
        if path:
            self.setCurrentPath(path)
