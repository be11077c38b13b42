"""Nodes that exist only to show something: at most one for each purpose, found by it; hidden unless saved."""

from __future__ import annotations

from typing import Any

import slicer

PURPOSE = "PDDRegistration.auxiliary"  # attribute of every such node


def auxiliaryNode(scene: Any, className: str, purpose: str, saved: bool = False) -> Any:
    """The scene's node for this purpose, made where there is none yet.

    `purpose` is unique among all auxiliary nodes, for instance "folding".
    """
    found = findAuxiliary(scene, purpose)
    if found is not None:
        return found
    node = getattr(slicer, className)()
    node.SetName(f"PDDRegistration {purpose}")
    node.SetAttribute(PURPOSE, purpose)
    node.SetHideFromEditors(not saved)  # Slicer's dialog for saving leaves out what is hidden
    node.SetSaveWithScene(saved)
    return scene.AddNode(node)


def findAuxiliary(scene: Any, purpose: str) -> Any:
    """The node for this purpose, or None."""
    return next((node for node in auxiliaryNodes(scene) if node.GetAttribute(PURPOSE) == purpose), None)


def auxiliaryNodes(scene: Any) -> list[Any]:
    """All nodes made by `auxiliaryNode` that are in the scene."""
    nodes = scene.GetNodes()
    every = [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
    return [node for node in every if node.GetAttribute(PURPOSE)]


def removeAuxiliary(scene: Any, purpose: str) -> None:
    """Remove the node for this purpose with its display and storage nodes, if it is there."""
    node = findAuxiliary(scene, purpose)
    if node is not None:
        removeNode(scene, node)


def removeNode(scene: Any, node: Any) -> None:
    """Remove a node and the display and storage nodes only it has."""
    companions = []
    if node.IsA("vtkMRMLDisplayableNode"):
        companions += [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        companions += [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
    scene.RemoveNode(node)
    for companion in filter(None, companions):
        if scene.IsNodePresent(companion):
            scene.RemoveNode(companion)
