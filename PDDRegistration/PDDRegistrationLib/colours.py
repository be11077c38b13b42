"""Colour tables of the result's maps: Jacobian determinant around 1, uncertainty in mm."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from .auxiliary import auxiliaryNode, findAuxiliary, removeAuxiliary

JACOBIAN_RANGE = (0.0, 2.0)  # determinants of the first and the last colour
JACOBIAN, UNCERTAINTY, DISPLACEMENT = "Jacobian colours", "uncertainty colours", "displacement colours"
FOLDING_COLOUR = (0.95, 0.05, 0.05)
_ENTRIES = 256
# (log2 of the determinant, red, green, blue): blue shrinks, red grows, as is usual; dark where nothing changes
_JACOBIAN = (
    (-1.0, 0.25, 0.65, 1.0),
    (-0.4, 0.05, 0.25, 0.75),
    (-0.05, 0.0, 0.0, 0.0),
    (0.05, 0.0, 0.0, 0.0),
    (0.4, 0.75, 0.22, 0.0),
    (1.0, 1.0, 0.65, 0.1),
)
# (part of the range, red, green, blue), growing in brightness so that it reads without colour vision
_UNCERTAINTY = (
    (0.1, 0.0, 0.0, 0.0),
    (0.25, 0.25, 0.05, 0.40),
    (0.5, 0.70, 0.15, 0.35),
    (0.75, 0.95, 0.45, 0.10),
    (1.0, 1.0, 0.95, 0.45),
)
# (part of the range, red, green, blue)
_DISPLACEMENT = (
    (0.0, 0.35, 0.60, 0.95),
    (0.12, 0.30, 0.90, 0.85),
    (0.32, 0.95, 0.95, 0.30),
    (0.6, 1.0, 0.55, 0.10),
    (1.0, 1.0, 0.20, 0.20),
)
_SMALLEST_DISPLACEMENT_RANGE = 25.0  # mm: small displacements look small


def jacobianColours(scene: Any) -> Any:
    """The colour node of Jacobian determinants over JACOBIAN_RANGE."""
    determinants = np.linspace(*JACOBIAN_RANGE, _ENTRIES)
    return _table(scene, JACOBIAN, np.log2(np.maximum(determinants, 0.25)), determinants, _JACOBIAN)


def uncertaintyColours(scene: Any) -> Any:
    """The colour node of uncertainties, dark for none."""
    parts = np.linspace(0, 1, _ENTRIES)
    return _table(scene, UNCERTAINTY, parts, parts, _UNCERTAINTY)


def _table(scene: Any, purpose: str, at: Any, names: Any, knots: Any) -> Any:
    """A saved colour node; colours are those of `knots` interpolated `at` the entries."""
    node = auxiliaryNode(scene, "vtkMRMLColorTableNode", purpose, saved=True)
    if node.GetNumberOfColors() != _ENTRIES:
        columns = np.asarray(knots, float).T
        channels = [np.interp(at, columns[0], column) for column in columns[1:]]
        before = node.StartModify()  # else each colour is told to all observers, 0.15 s in all
        node.SetTypeToUser()
        node.SetNumberOfColors(_ENTRIES)
        for index, (red, green, blue) in enumerate(zip(*channels, strict=True)):
            node.SetColor(index, f"{names[index]:.3f}", red, green, blue, 1.0)
        node.EndModify(before)
    return node


def removeUnusedColours(scene: Any) -> None:
    """Remove the colour nodes that no display node refers to any more."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLDisplayNode")
    used = {scene.GetNthNodeByClass(index, "vtkMRMLDisplayNode").GetColorNodeID() for index in range(count)}
    for purpose in (JACOBIAN, UNCERTAINTY, DISPLACEMENT):
        node = findAuxiliary(scene, purpose)
        if node is not None and node.GetID() not in used:
            removeAuxiliary(scene, purpose)


def displacementColours(scene: Any, limit: float) -> Any:
    """The colour node of displacements from 0 to `limit` mm.

    Slicer's own begins with a grey that cannot be seen on soft tissue.
    """
    node = auxiliaryNode(scene, "vtkMRMLProceduralColorNode", DISPLACEMENT, saved=True)
    function = node.GetColorTransferFunction()
    if function.GetRange() != (0.0, limit):
        function.RemoveAllPoints()
        for part, *colour in _DISPLACEMENT:
            function.AddRGBPoint(part * limit, *colour)
    return node


def displacementLimit(transform: Any) -> float:
    """The upper end of the displacements' colours in mm: 25, or what all but one in fifty stay below."""
    vectors = slicer.util.arrayFromGridTransform(transform).reshape(-1, 3)
    sample = vectors[:: max(1, len(vectors) // 100_000)]
    reached = np.percentile(np.linalg.norm(sample, axis=1), 98) if len(sample) else 0.0
    return float(max(_SMALLEST_DISPLACEMENT_RANGE, np.ceil(reached)))


def giveJacobianColours(scene: Any, volume: Any) -> None:
    """Let a Jacobian determinant be shown in colours around 1, here and wherever it is looked at later."""
    _show(volume, jacobianColours(scene), *JACOBIAN_RANGE)


def giveUncertaintyColours(scene: Any, volume: Any) -> None:
    """Let an uncertainty be shown in colours from 0 to what all but one voxel in a hundred stay below."""
    _show(volume, uncertaintyColours(scene), 0.0, uncertaintyLimit(volume))


def uncertaintyLimit(volume: Any) -> float:
    """The upper end of the uncertainty's colours in mm: a round number, at least 1."""
    values = slicer.util.arrayFromVolume(volume)
    sample = values.reshape(-1)[:: max(1, values.size // 100_000)]
    sample = sample[np.isfinite(sample)]
    return float(max(1.0, np.ceil(np.percentile(sample, 99)))) if sample.size else 1.0


def _show(volume: Any, colours: Any, lower: float, upper: float) -> None:
    if volume.GetDisplayNode() is None:
        volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    wasModified = display.StartModify()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(upper - lower, (upper + lower) / 2)
    display.SetAndObserveColorNodeID(colours.GetID())
    display.EndModify(wasModified)
