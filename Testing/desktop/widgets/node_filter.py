"""Which nodes of a scene a selector offers, and what a new one is called."""

from __future__ import annotations

from PySide6.QtCore import Property
from PySide6.QtWidgets import QWidget

from .stored import stored


class NodeFilter(QWidget):
    """The filter of the qMRML selectors: types, attributes, hidden nodes."""

    showHidden = stored(bool, False, "_update")
    showChildNodeTypes = stored(bool, True, "_update")
    hideChildNodeTypes = stored("QStringList", [], "_update")
    baseName = stored(str, "")
    _types: tuple[str, ...] = ()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._attributes: dict[str, tuple[str, str | None]] = {}  # by class name: one attribute and its value
        self._labels: dict[str, str] = {}

    def setNodeTypes(self, types) -> None:
        self._types = tuple(name for name in types if name)
        self._update()

    nodeTypes = Property("QStringList", lambda self: list(self._types), setNodeTypes)

    def addAttribute(self, nodeType: str, name: str, value=None) -> None:
        """Only nodes with this attribute fit (any value without one), and new nodes get it; one for each type."""
        self._attributes[nodeType] = (name, None if value is None else str(value))
        self._update()

    def removeAttribute(self, nodeType: str, name: str) -> None:
        if self._attributes.get(nodeType, ("", None))[0] == name:
            del self._attributes[nodeType]
        self._update()

    def fittingNodes(self, scene) -> list:
        """The scene's nodes that the selector shows, in the scene's order."""
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        return [node for node in nodes if self.fits(node)]

    def fits(self, node) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if not self._types:
            return True
        kind = next((kind for kind in self._types if self._fitsType(node, kind)), None)
        return kind is not None and not self._hiddenChild(node) and self._fitsAttribute(node, kind)

    def _fitsType(self, node, kind: str) -> bool:
        return node.IsA(kind) if self.showChildNodeTypes else node.GetClassName() == kind

    def _hiddenChild(self, node) -> bool:
        return self.showChildNodeTypes and any(node.IsA(kind) for kind in self.hideChildNodeTypes)

    def _fitsAttribute(self, node, kind: str) -> bool:
        name, value = self._attributes.get(kind, ("", None))
        return not name or (node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name)))

    def nodeTypeLabel(self, kind: str) -> str:
        if kind in self._labels:
            return self._labels[kind]
        label = self.mrmlScene().GetTypeDisplayNameByClassName(kind) if kind and self.mrmlScene() else ""
        return label or "node"

    def setNodeTypeLabel(self, label: str, kind: str) -> None:
        self._labels[kind] = label
        self._update()

    def createNode(self, scene, kind: str):
        """A new node in the scene, with the selector's base name and attributes."""
        node = scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetName(scene.GetUniqueNameByString(self.baseName or node.GetDefaultNodeNamePrefix()))
        for name, value in self._attributes.values():
            node.SetAttribute(name, value or "")
        return scene.AddNode(node)
