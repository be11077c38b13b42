"""What the views and display nodes showed before we changed them, so that one click brings it back."""

from __future__ import annotations

from typing import Any

import vtk

from . import layouts

_COMPOSITE = (
    "BackgroundVolumeID",
    "ForegroundVolumeID",
    "LabelVolumeID",
    "ForegroundOpacity",
    "LabelOpacity",
    "Compositing",
    "LinkedControl",
    "HotLinkedControl",
)


class ViewState:
    """Remembers a node once, before its first change, and writes it back.

    Nodes are kept by their ID: one that was deleted in the meantime is passed over.
    """

    def __init__(self, scene: Any):
        self._scene = scene
        self._composites: dict[str, dict[str, Any]] = {}
        self._slices: dict[str, tuple[Any, tuple[float, ...], tuple[float, ...]]] = {}
        self._groups: dict[str, int] = {}
        self._displays: dict[str, tuple[Any, dict[str, str | None], list[str]]] = {}
        self._layout: tuple[int, list[str]] | None = None

    def composite(self, node: Any) -> dict[str, Any]:
        """The properties of a slice composite node as they were, remembered now if it is new."""
        if node.GetID() not in self._composites:
            self._composites[node.GetID()] = {name: getattr(node, f"Get{name}")() for name in _COMPOSITE}
        return dict(self._composites[node.GetID()])

    def rememberSlice(self, node: Any) -> None:
        """Remember where a slice view is."""
        if node.GetID() not in self._slices:
            matrix = vtk.vtkMatrix4x4()
            matrix.DeepCopy(node.GetSliceToRAS())
            self._slices[node.GetID()] = matrix, tuple(node.GetFieldOfView()), tuple(node.GetXYZOrigin())

    def rememberGroup(self, node: Any) -> None:
        """Remember with which views a view is linked."""
        self._groups.setdefault(node.GetID(), node.GetViewGroup())

    def rememberDisplay(self, node: Any) -> None:
        """Remember all of a display node."""
        if node.GetID() not in self._displays:
            copy = type(node)()
            copy.CopyContent(node)
            self._displays[node.GetID()] = copy, _references(node), list(node.GetViewNodeIDs())

    def rememberLayout(self) -> None:
        """Remember which views are shown, unless that is done already."""
        layout = layouts.layoutNode(self._scene)
        if layout is not None and self._layout is None:
            count = layout.GetNumberOfMaximizedViewNodes()
            maximized = [layout.GetMaximizedViewNode(index).GetID() for index in range(count)]
            self._layout = layout.GetViewArrangement(), maximized

    def restoreLayout(self) -> None:
        """Show the remembered views again, each linked with those it was linked with."""
        layout, remembered = layouts.layoutNode(self._scene), self._layout
        self._layout = None
        if layout is not None and remembered is not None:
            layout.SetViewArrangement(remembered[0])
            for node in filter(None, map(self._scene.GetNodeByID, remembered[1])):
                layout.AddMaximizedViewNode(node)
        for node, group in self._taken(self._groups):
            node.SetViewGroup(group)

    def forgetLayout(self) -> None:
        """The user has chosen another layout: it stays."""
        self._layout = None
        self.restoreLayout()

    def restoreSlices(self) -> None:
        """Put the slice views back where they were."""
        for node, (matrix, field, origin) in self._taken(self._slices):
            wasModified = node.StartModify()
            node.GetSliceToRAS().DeepCopy(matrix)
            node.SetFieldOfView(*field)
            node.SetXYZOrigin(*origin)
            node.UpdateMatrices()
            node.EndModify(wasModified)

    def restoreComposites(self, keep: list[Any] | None = None) -> None:
        """Let the slice views show the volumes they showed, but for the composite nodes in `keep`."""
        kept = {node.GetID(): self._composites.pop(node.GetID()) for node in keep or []}
        for node, properties in self._taken(self._composites):
            setComposite(node, self.present(properties))
        self._composites = kept

    def restoreDisplays(self, nodes: list[Any]) -> None:
        """Write these display nodes back, those that are still there."""
        for node in nodes:
            if node.GetScene() is None or node.GetID() not in self._displays:
                continue
            copy, references, viewIDs = self._displays.pop(node.GetID())
            wasModified = node.StartModify()
            node.CopyContent(copy)
            for role, nodeID in references.items():
                node.SetNodeReferenceID(role, nodeID)
            node.SetViewNodeIDs(viewIDs)
            node.EndModify(wasModified)

    def present(self, properties: dict[str, Any]) -> dict[str, Any]:
        """The same without volumes that are no longer in the scene."""
        return {
            name: None if name.endswith("ID") and not (value and self._scene.GetNodeByID(value)) else value
            for name, value in properties.items()
        }

    def _taken(self, remembered: dict[str, Any]) -> list[tuple[Any, Any]]:
        """The nodes that are still there with what was remembered of them, which is forgotten."""
        pairs = [(self._scene.GetNodeByID(nodeID), value) for nodeID, value in remembered.items()]
        remembered.clear()
        return [(node, value) for node, value in pairs if node is not None]


def setComposite(node: Any, properties: dict[str, Any]) -> None:
    """Write those properties of a slice composite node that differ, in one change."""
    wasModified = node.StartModify()
    for name, value in properties.items():
        if getattr(node, f"Get{name}")() != value:
            getattr(node, f"Set{name}")(value)
    node.EndModify(wasModified)


def _references(node: Any) -> dict[str, str | None]:
    roles = [node.GetNthNodeReferenceRole(index) for index in range(node.GetNumberOfNodeReferenceRoles())]
    return {role: node.GetNodeReferenceID(role) for role in roles}
