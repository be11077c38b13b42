"""Selectors that are more than one list of nodes: with check marks, and of segments."""

from __future__ import annotations

from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtWidgets import QComboBox, QVBoxLayout, QWidget

from .ctk_inputs import ctkCheckableComboBox
from .node_combo_box import qMRMLNodeComboBox
from .stored import stored


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):  # noqa: N801 (the application's name)
    """The nodes of a scene with check marks."""

    checkedNodesChanged = Signal()

    def __init__(self, parent=None):
        self._marked: set[str] = set()  # by node ID
        super().__init__(parent)
        self.setProperty("addEnabled", False)
        self.setProperty("removeEnabled", False)
        self._box.checkedIndexesChanged.connect(self._readMarks)

    def _makeBox(self) -> QComboBox:
        return ctkCheckableComboBox(self)

    def _fill(self) -> None:
        super()._fill()
        for row in range(self._box.count()):
            item = self._box.model().item(row)
            if self._nodeAt(row) is None:
                item.setCheckable(False)
                item.setData(None, Qt.CheckStateRole)
            else:
                item.setCheckState(Qt.Checked if self._nodeAt(row).GetID() in self._marked else Qt.Unchecked)

    def _readMarks(self) -> None:
        indexes = self._box.checkedIndexes()
        self._marked = {self._nodeAt(index.row()).GetID() for index in indexes}
        self.checkedNodesChanged.emit()

    def checkedNodes(self) -> list:
        return [node for node in self._nodes if node.GetID() in self._marked]

    def uncheckedNodes(self) -> list:
        return [node for node in self._nodes if node.GetID() not in self._marked]

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def checkState(self, node) -> Qt.CheckState:
        return Qt.Checked if node in self.checkedNodes() else Qt.Unchecked

    def setCheckState(self, node, state: Qt.CheckState) -> None:
        if node in self._nodes:
            row = self._nodes.index(node) + int(self.noneEnabled)
            self._box.setCheckState(self._box.model().index(row, 0), state)

    def check(self, node) -> None:
        self.setCheckState(node, Qt.Checked)

    def uncheck(self, node) -> None:
        self.setCheckState(node, Qt.Unchecked)


class qMRMLSegmentSelectorWidget(QWidget):  # noqa: N801
    """A segmentation and one or more of its segments."""

    currentNodeChanged = Signal((object,), (bool,))
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal("QStringList")
    mrmlSceneChanged = Signal(object)

    noneEnabled = stored(bool, False, "_refill")
    multiSelection = stored(bool, False, "_refill")
    selectNodeUponCreation = stored(bool, True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._segments = ctkCheckableComboBox(self)
        self._segments.currentIndexChanged.connect(lambda _row: self._tell())
        self._segments.checkedIndexesChanged.connect(self._tell)
        self._selector = qMRMLNodeComboBox(self)
        self._selector.setNodeTypes(["vtkMRMLSegmentationNode"])
        for name in ("addEnabled", "removeEnabled"):
            self._selector.setProperty(name, False)
        self._selector.currentNodeChanged[object].connect(self._nodeChanged)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._selector)
        layout.addWidget(self._segments)

    segmentationNodeSelectorVisible = Property(
        bool, lambda self: not self._selector.isHidden(), lambda self, on: self._selector.setVisible(on)
    )

    def mrmlScene(self):
        return self._selector.mrmlScene()

    def setMRMLScene(self, scene) -> None:
        self._selector.setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)

    def currentNode(self):
        return self._selector.currentNode()

    def setCurrentNode(self, node) -> None:
        self._selector.setCurrentNode(node)

    def currentNodeID(self) -> str:
        return self._selector.currentNodeID

    def setCurrentNodeID(self, nodeID: str) -> None:
        self._selector.setCurrentNodeID(nodeID)

    def _nodeChanged(self, node) -> None:
        self._refill()
        self.currentNodeChanged[object].emit(node)
        self.currentNodeChanged[bool].emit(node is not None)

    def _refill(self) -> None:
        self._segments.blockSignals(True)
        self._segments.clear()
        if self.noneEnabled and not self.multiSelection:
            self._segments.addItem("None", "")
        for segmentID in self.segmentIDs():
            self._segments.addItem(
                self.currentNode().GetSegmentation().GetSegment(segmentID).GetName(), segmentID
            )
        for row in range(self._segments.count()):
            self._segments.model().item(row).setCheckable(self.multiSelection)
        self._segments.blockSignals(False)
        self._tell()

    def _tell(self) -> None:
        self.currentSegmentChanged.emit(self.currentSegmentID())
        self.segmentSelectionChanged.emit(self.selectedSegmentIDs())

    def segmentIDs(self) -> list[str]:
        node = self.currentNode()
        return list(node.GetSegmentation().GetSegmentIDs()) if node is not None else []

    def currentSegmentID(self) -> str:
        return self._segments.currentData() or ""

    def setCurrentSegmentID(self, segmentID: str) -> None:
        self._segments.setCurrentIndex(self._segments.findData(segmentID))

    def selectedSegmentIDs(self) -> list[str]:
        if not self.multiSelection:
            return [self.currentSegmentID()] if self.currentSegmentID() else []
        return [index.data(Qt.UserRole) for index in self._segments.checkedIndexes()]

    def setSelectedSegmentIDs(self, segmentIDs) -> None:
        for row in range(self._segments.count()):
            index = self._segments.model().index(row, 0)
            chosen = index.data(Qt.UserRole) in segmentIDs
            self._segments.setCheckState(index, Qt.Checked if chosen else Qt.Unchecked)
