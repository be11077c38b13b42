"""The widget that hands the scene to those within it, and the table of a table node."""

from __future__ import annotations

import vtk
from PySide6.QtCore import Property, Signal
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QTableView, QWidget

_EVENT = vtk.vtkCommand.ModifiedEvent


class qMRMLWidget(QWidget):  # noqa: N801 (the application's name)
    """A widget with a scene; the .ui connects `mrmlSceneChanged` to the `setMRMLScene` of those within."""

    mrmlSceneChanged = Signal(object)
    _scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLTableView(QTableView):  # noqa: N801
    """Shows a vtkMRMLTableNode: columns are its columns, the header their names."""

    mrmlSceneChanged = Signal(object)
    _scene = _node = _tag = None
    _transposed = False

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setModel(QStandardItemModel(self))

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)

    def mrmlTableNode(self):
        return self._node

    def setMRMLTableNode(self, node) -> None:
        if self._node is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        if node is not None:
            self._tag = node.AddObserver(_EVENT, lambda *_: self._fill())
            self.destroyed.connect(lambda *_, node=node, tag=self._tag: node.RemoveObserver(tag))
        self._fill()

    def tableModel(self) -> QStandardItemModel:
        return self.model()

    def setTransposed(self, transposed: bool) -> None:
        self._transposed = transposed
        self._fill()

    transposed = Property(bool, lambda self: self._transposed, setTransposed)

    def _fill(self) -> None:
        model = self.model()
        model.clear()
        table = self._node.GetTable() if self._node is not None else None
        columns = range(table.GetNumberOfColumns()) if table else ()
        names = [_header(self._node, table.GetColumnName(column) or "") for column in columns]
        rows = range(table.GetNumberOfRows()) if table else ()
        cells = [[table.GetValue(row, column).ToString() for column in range(len(names))] for row in rows]
        if self._transposed:
            cells = [list(column) for column in zip(*cells, strict=True)]
        for row in cells:
            model.appendRow([QStandardItem(text) for text in row])
        if self._transposed:
            model.setVerticalHeaderLabels(names)
        else:
            model.setHorizontalHeaderLabels(names)


def _header(node, name: str) -> str:
    """As qMRMLTableModel makes it: the title and the unit where the table wants titles, else the name."""
    if not node.GetUseColumnTitleAsColumnHeader():
        return name
    title, unit = node.GetColumnTitle(name) or name, node.GetColumnUnitLabel(name)
    return f"{title} [{unit}]" if unit else title
