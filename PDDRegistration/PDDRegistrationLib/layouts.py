"""Which slice views the current layout shows, and the layout in which two scans stand beside each other."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import vtk

PAIRED_LAYOUT = 7130  # far from Slicer's own numbers; nothing else may register it
# The right views are the application's own (it shows them in "Three over three"), so that none of ours is left behind.
PAIRS = (("Red", "Red+"), ("Green", "Green+"))

_VIEW = """<item><view class="vtkMRMLSliceNode" singletontag="{name}">
<property name="orientation" action="default">{orientation}</property>
<property name="viewlabel" action="default">{label}</property>
<property name="viewcolor" action="default">{colour}</property>
<property name="viewgroup" action="default">{group}</property>
</view></item>"""
_VIEWS = {
    "Red": ("Axial", "R", "#F34A33", 0),
    "Red+": ("Axial", "R+", "#f9a99f", 1),
    "Green": ("Coronal", "G", "#6EB04B", 0),
    "Green+": ("Coronal", "G+", "#c6e0b8", 1),
}


def layoutNode(scene: Any) -> Any:
    """The scene's layout node, None in a scene that has no views."""
    return scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def showPairedLayout(scene: Any) -> None:
    """Put two scans beside each other, axial above coronal; the views are made by the application."""
    layout = layoutNode(scene)
    if layout is None:
        return
    registerPairedLayout(scene)
    layout.RemoveAllMaximizedViewNodes()
    layout.SetViewArrangement(PAIRED_LAYOUT)


def registerPairedLayout(scene: Any) -> None:
    """Make the layout known: a scene that was saved with it would else be loaded without any view."""
    layout = layoutNode(scene)
    if layout is not None and not layout.IsLayoutDescription(PAIRED_LAYOUT):
        layout.AddLayoutDescription(PAIRED_LAYOUT, _pairedDescription())


def pairedLayoutShown(scene: Any) -> bool:
    """Whether the views stand as `showPairedLayout` left them."""
    layout = layoutNode(scene)
    return layout is not None and layout.GetViewArrangement() == PAIRED_LAYOUT


def sliceNodesShown(scene: Any) -> list[Any]:
    """The slice nodes of the current layout, in its order; all of the scene where no layout is known."""
    nodes = {node.GetLayoutName(): node for node in _nodesOf(scene, "vtkMRMLSliceNode")}
    layout = layoutNode(scene)
    description = (layout.GetCurrentLayoutDescription() if layout else "") or ""
    if not description:
        return list(nodes.values())
    views = ElementTree.fromstring(description).iter("view")
    names = [view.get("singletontag") for view in views if view.get("class") == "vtkMRMLSliceNode"]
    return [nodes[name] for name in names if name in nodes]


def shownPairs(scene: Any) -> list[tuple[Any, Any]]:
    """(left, right) slice nodes of the paired layout, as far as they are shown."""
    nodes = {node.GetLayoutName(): node for node in sliceNodesShown(scene)}
    return [(nodes[left], nodes[right]) for left, right in PAIRS if left in nodes and right in nodes]


def pairNodes(scene: Any) -> list[Any]:
    """The slice nodes of the paired layout that exist, shown or not."""
    names = [name for pair in PAIRS for name in pair]
    return [node for node in _nodesOf(scene, "vtkMRMLSliceNode") if node.GetLayoutName() in names]


def isRight(sliceNode: Any) -> bool:
    """Whether this view is on the right in the paired layout."""
    return sliceNode.GetLayoutName() in [right for _left, right in PAIRS]


def compositeNode(scene: Any, sliceNode: Any) -> Any:
    """The node that says which volumes the view of `sliceNode` shows; None before the view exists."""
    name = sliceNode.GetLayoutName()
    composites = _nodesOf(scene, "vtkMRMLSliceCompositeNode")
    return next((node for node in composites if node.GetLayoutName() == name), None)


def placeLike(sliceNode: Any, model: Any) -> None:
    """Show in the view of `sliceNode` the plane and the scale of the view of `model`."""
    wasModified = sliceNode.StartModify()
    sliceNode.GetSliceToRAS().DeepCopy(model.GetSliceToRAS())
    sliceNode.SetXYZOrigin(*model.GetXYZOrigin())
    width, height, _ = sliceNode.GetDimensions()
    _, fieldHeight, fieldDepth = model.GetFieldOfView()
    sliceNode.SetFieldOfView(fieldHeight * width / max(height, 1), fieldHeight, fieldDepth)
    sliceNode.UpdateMatrices()
    sliceNode.EndModify(wasModified)


def freeViewGroup(scene: Any) -> int:
    """A number that no view of the scene has for its group."""
    return 1 + max((node.GetViewGroup() for node in _nodesOf(scene, "vtkMRMLAbstractViewNode")), default=0)


def horizontalAxis(sliceNode: Any, volumeNode: Any) -> tuple[int, int]:
    """(array axis, sign) of the volume's axis that runs most nearly from left to right on the screen.

    The array axis is that of `arrayFromVolume` (0 is k); sign is -1 where indices grow towards the left.
    """
    directions, sliceToWorld = vtk.vtkMatrix4x4(), sliceNode.GetSliceToRAS()
    volumeNode.GetIJKToRASDirectionMatrix(directions)
    rightward = [sliceToWorld.GetElement(row, 0) for row in range(3)]
    parent = volumeNode.GetParentTransformNode()
    if parent is not None and parent.IsTransformToWorldLinear():
        fromWorld = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformFromWorld(fromWorld)
        rightward = fromWorld.MultiplyPoint([*rightward, 0.0])[:3]
    along = [sum(directions.GetElement(row, axis) * rightward[row] for row in range(3)) for axis in range(3)]
    axis = max(range(3), key=lambda index: abs(along[index]))
    return 2 - axis, 1 if along[axis] > 0 else -1


def _pairedDescription() -> str:
    """The layout in the application's own language."""
    rows = [
        '<item><layout type="horizontal">'
        + "".join(_viewDescription(name) for name in pair)
        + "</layout></item>"
        for pair in PAIRS
    ]
    return '<layout type="vertical">' + "".join(rows) + "</layout>"


def _viewDescription(name: str) -> str:
    orientation, label, colour, group = _VIEWS[name]
    return _VIEW.format(name=name, orientation=orientation, label=label, colour=colour, group=group)


def _nodesOf(scene: Any, className: str) -> list[Any]:
    """The scene's nodes of this class, as a list that stays valid while nodes come and go."""
    return [
        scene.GetNthNodeByClass(index, className) for index in range(scene.GetNumberOfNodesByClass(className))
    ]
