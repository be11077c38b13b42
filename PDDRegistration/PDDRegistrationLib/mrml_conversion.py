"""Nodes to files and files to nodes: the one door to the modules `mrml_*`.

Everything named `export...` and `make...` is a generator of steps of a few milliseconds: drive it to its end, and its
value is what the worker is told (`pddnet.job`) or a node that is in no scene yet; or close it at any step. Nodes of the
scene are only read, except by `updateNode` and `copyDisplay`.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from pddnet.errors import InputError
from pddnet.geometry import lps_to_ras
from pddnet.job import SyntheticFiles

from .mrml_geometry import geometryOfVolume
from .mrml_masks import exportMask
from .mrml_segmentations import copyDisplay, exportSegmentation, makeSegmentation, makeSegmentationOfLabels
from .mrml_transforms import (
    exportParents,
    exportTransform,
    hasRightAngles,
    interpolateLinearly,
    makeGridTransform,
)
from .mrml_volumes import exportVolume, makeVolume

__all__ = [
    "copyDisplay",
    "exportMask",
    "exportParents",
    "exportSegmentation",
    "exportTransform",
    "exportVolume",
    "geometryOfVolume",
    "hasRightAngles",
    "interpolateLinearly",
    "landmarkPoints",
    "makeGridTransform",
    "makeSegmentation",
    "makeSyntheticPair",
    "makeVolume",
    "updateNode",
]


def landmarkPoints(node: Any) -> np.ndarray:
    """The points of a markups node that have a position, (N, 3), mm LPS in the world."""
    points = [
        node.GetNthControlPointPositionWorld(number)
        for number in range(node.GetNumberOfControlPoints())
        if node.GetNthControlPointPositionStatus(number) == node.PositionDefined
    ]
    return lps_to_ras(np.array(points, dtype=np.float64).reshape(-1, 3))


def makeSyntheticPair(files: SyntheticFiles, folder: Path) -> Generator[None, None, dict[str, Any]]:
    """The two made-up patients as nodes in no scene.

    Returns:
        "fixed" and "moving" volumes, "fixedSegmentation" and "movingSegmentation".
    """
    nodes: dict[str, Any] = {}
    for role, image, labels in (
        ("fixed", files.fixed, files.fixed_labels),
        ("moving", files.moving, files.moving_labels),
    ):
        nodes[role] = yield from makeVolume(image, folder)
        nodes[f"{role}Segmentation"] = yield from makeSegmentationOfLabels(labels, folder, nodes[role])
    return nodes


def updateNode(target: Any, made: Any) -> None:
    """Give a node of the scene the content of one that is in no scene, told to its observers once.

    The target keeps its name, ID, parent transform, attributes and display nodes.

    Raises:
        InputError: the target is of another kind.
    """
    kind = "vtkMRMLTransformNode" if made.IsA("vtkMRMLTransformNode") else made.GetClassName()
    if not target.IsA(kind):
        raise InputError(
            f"the output {target.GetName()} is a {target.GetNodeTagName()}, the result a {made.GetNodeTagName()}; "
            "choose another output node, or none to have a new one made"
        )
    for name in target.GetAttributeNames():  # CopyContent would take those away that `made` lacks
        if made.GetAttribute(name) is None:
            made.SetAttribute(name, target.GetAttribute(name))
    before = target.StartModify()
    try:
        target.CopyContent(made, False)
        if made.IsA("vtkMRMLSegmentationNode"):
            role = made.GetReferenceImageGeometryReferenceRole()
            target.SetNodeReferenceID(role, made.GetNodeReferenceID(role))
    finally:
        target.EndModify(before)
