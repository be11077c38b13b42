"""qMRMLNodeComboBox and its checkable form, on the real scene."""

from __future__ import annotations

import shiboken6
from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QSizePolicy

from .node_filter import NodeFilter
from .scene_watch import SceneWatch
from .stored import forwarded, stored

_ACTION = Qt.UserRole + 1  # what an entry does that is no node


class qMRMLNodeComboBox(NodeFilter):  # noqa: N801 (the application's name)
    """The nodes of a scene that fit, perhaps "None", then the actions."""

    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)

    noneEnabled = stored(bool, False, "_update")
    noneDisplay = stored(str, "None", "_update")
    addEnabled = stored(bool, True, "_update")
    removeEnabled = stored(bool, True, "_update")
    editEnabled = stored(bool, False, "_update")
    renameEnabled = stored(bool, False, "_update")
    selectNodeUponCreation = stored(bool, True)
    interactionNodeSingletonTag = stored(str, "")
    sizeAdjustPolicy = forwarded(QComboBox.SizeAdjustPolicy, "_box", "sizeAdjustPolicy")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._nodes: list = []
        self._names: dict = {}
        self._userActions: list = []
        self._current = None
        self._told = ""  # the text when a change was last told
        self._requested = ""
        self._watch = None
        self._box = self._makeBox()
        self._box.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Expanding)
        self._box.activated.connect(self._activated)
        self._box.currentIndexChanged.connect(self._indexChanged)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self.setSizePolicy(QSizePolicy.Preferred, QSizePolicy.Fixed)
        self.setEnabled(False)  # as in the application, until there is a scene

    def _makeBox(self) -> QComboBox:
        return QComboBox(self)

    def mrmlScene(self):
        return self._watch.scene if self._watch else None

    def setMRMLScene(self, scene) -> None:
        if scene is self.mrmlScene():
            return
        wanted = self.currentNodeID or self._requested
        if self._watch:
            self._watch.stop()
        self._watch = SceneWatch(scene, self._sceneChanged) if scene is not None else None
        self._requested = ""
        self._update()
        if wanted:
            self.setCurrentNodeID(wanted)
        self.setEnabled(scene is not None)

    def _sceneChanged(self, what: str, node) -> None:
        if not shiboken6.isValid(self):
            self._watch.stop()
        elif what == "removing":
            if node in self._nodes:
                self.nodeAboutToBeRemoved.emit(node)
        elif what == "modified" and self.fits(node) == (node in self._nodes):
            if node in self._nodes and node.GetName() != self._names[node]:
                self._renamed(node)
        else:
            self._update()
            if what == "added" and node in self._nodes:
                self.nodeAdded.emit(node)

    def _renamed(self, node) -> None:
        """The application says that the current node has changed also when only its name has."""
        self._update()
        if node is self._current:
            self._emitCurrent()

    def _update(self) -> None:
        scene = self.mrmlScene()
        before, row = self._current, self._nodes.index(self._current) if self._current in self._nodes else -1
        wasEmpty = not self._nodes
        self._nodes = self.fittingNodes(scene) if scene is not None else []
        self._names = {node: node.GetName() for node in self._nodes}
        self._box.blockSignals(True)
        self._fill()
        self._box.blockSignals(False)
        if before not in self._nodes:
            before = self._instead(row, wasEmpty)
        self._select(before)

    def _fill(self) -> None:
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay)
        for node in self._nodes:
            self._box.addItem(node.GetName() or "", node.GetID())
        actions = self._actions() if self.mrmlScene() is not None else []
        if actions:
            self._box.insertSeparator(self._box.count())
        for text, action in actions:
            self._box.addItem(text)
            self._box.setItemData(self._box.count() - 1, action, _ACTION)
        self._box.setPlaceholderText(f"Select a {self.nodeTypeLabel((*self.nodeTypes, '')[0])}")

    def _actions(self) -> list[tuple[str, tuple[str, str]]]:
        types = self.nodeTypes
        label = self.nodeTypeLabel(types[0] if len(types) == 1 else "")
        actions = [(f"Rename current {label}", ("rename", ""))] if self.renameEnabled else []
        actions += [(f"Edit current {label}", ("edit", ""))] if self.editEnabled else []
        for kind in types if self.addEnabled else ():
            actions.append((f"Create new {self.nodeTypeLabel(kind)}", ("create", kind)))
            if self.renameEnabled:
                actions.append((f"Create new {self.nodeTypeLabel(kind)} as...", ("createAs", kind)))
        actions += [(f"Delete current {label}", ("delete", ""))] if self.removeEnabled else []
        return actions + [(action.text(), ("user", action.text())) for action in self._userActions]

    def _instead(self, row: int, wasEmpty: bool):
        """What is chosen when the chosen node has gone, or the first one has come."""
        if self.noneEnabled or not self._nodes:
            return None
        if row >= 0:  # Qt stays at the row; where an action is now, the application goes to the last node
            return self._nodes[min(row, len(self._nodes) - 1)]
        # Qt chooses the first of a box that was empty; a box with actions never is
        return self._nodes[0] if wasEmpty and not self._actions() else None

    def _select(self, node) -> None:
        changed = node is not self._current
        self._current = node
        first = int(self.noneEnabled)
        self._box.blockSignals(True)
        self._box.setCurrentIndex(first + self._nodes.index(node) if node is not None else first - 1)
        self._box.blockSignals(False)
        if (
            changed and self._box.currentText() != self._told
        ):  # as in 5.12: the text's change is told, no other
            self._emitCurrent()

    def _emitCurrent(self) -> None:
        node, self._told = self._current, self._box.currentText()
        self.currentNodeChanged[object].emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(self.currentNodeID)

    def _nodeAt(self, row: int):
        row -= int(self.noneEnabled)
        return self._nodes[row] if 0 <= row < len(self._nodes) else None

    def _indexChanged(self, row: int) -> None:
        node = self._nodeAt(row)
        if node is not None or row == int(self.noneEnabled) - 1:
            self._select(node)

    def _activated(self, row: int) -> None:
        action = self._box.itemData(row, _ACTION)
        if action is None:
            self.nodeActivated.emit(self._nodeAt(row))
            return
        self._select(self._current)
        self._act(*action)

    def _act(self, verb: str, argument: str) -> None:
        if verb in ("create", "createAs"):
            self._create(argument, verb == "createAs")
        elif verb == "user":
            next(action for action in self._userActions if action.text() == argument).trigger()
        else:
            {
                "rename": self.renameCurrentNode,
                "edit": self.editCurrentNode,
                "delete": self.removeCurrentNode,
            }[verb]()

    def _create(self, kind: str, named: bool) -> None:
        name = self._askName(f"Create new {self.nodeTypeLabel(kind)}", "") if named else ""
        if named and not name:
            return
        node = self.addNode(kind)
        if name:
            node.SetName(name)
        self.setCurrentNode(node)
        self.nodeAddedByUserAction.emit(node)

    def _askName(self, title: str, name: str) -> str:
        import qt

        return qt.QInputDialog.getText(self, title, "New name:", QLineEdit.Normal, name)

    def currentNode(self):
        return self._current

    def setCurrentNode(self, node) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, nodeID: str) -> None:
        if self.mrmlScene() is None:
            self._requested = nodeID
            return
        self._select(next((node for node in self._nodes if node.GetID() == nodeID), None))

    currentNodeID = Property(
        str, lambda self: self._current.GetID() if self._current is not None else "", setCurrentNodeID
    )

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self._nodes[index] if 0 <= index < len(self._nodes) else None)

    def nodeCount(self) -> int:
        return len(self._nodes)

    def nodeFromIndex(self, index: int):
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def addNode(self, kind: str = ""):
        """Add a node of an allowed type (the first without one); None where the type is not allowed."""
        kind = kind or (*self.nodeTypes, "")[0]
        if kind not in self.nodeTypes:
            return None
        node = self.createNode(self.mrmlScene(), kind)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def addMenuAction(self, action) -> None:
        self._userActions.append(action)
        self._update()

    def removeCurrentNode(self) -> None:
        self.mrmlScene().RemoveNode(self._current)

    def renameCurrentNode(self) -> None:
        if self._current is None:
            return
        name = self._askName(
            f"Rename {self.nodeTypeLabel(self._current.GetClassName())}", self._current.GetName()
        )
        if name:
            self._current.SetName(name)
            self.currentNodeRenamed.emit(name)

    def editCurrentNode(self) -> None:
        self.nodeAboutToBeEdited.emit(self._current)
