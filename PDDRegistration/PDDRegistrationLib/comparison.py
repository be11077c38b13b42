"""Which volumes each slice view shows in each way of comparing fixed and warped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import vtk

from . import layouts
from .composed_volume import ComposedVolume, sameGrid, warpedInFixedUnits

OFF, BLEND, SIDE_BY_SIDE, CHECKERBOARD = "off", "blend", "sideBySide", "checkerboard"
REVEAL, FLICKER, COMPARE_MOVING = "reveal", "flicker", "compareMoving"
MODES = (BLEND, SIDE_BY_SIDE, CHECKERBOARD, REVEAL, FLICKER, COMPARE_MOVING)
PAIRED = (SIDE_BY_SIDE, COMPARE_MOVING)  # the modes with a layout of their own


class Comparison:
    """The settings of all modes, and the hidden volumes that checkerboard, reveal and blend need."""

    def __init__(self, scene: Any):
        self._scene = scene
        self._composed: dict[str, ComposedVolume] = {}
        self._inFixedUnits: Any = None
        self.blendOpacity = 0.5
        self.checkerSizeMm = 25.0
        self.revealPosition = 0.5
        self.flipped = False

    def problem(self, mode: str, nodes: Any) -> str:
        """What the mode lacks, "" if nothing: "fixed", "moving", "warped", "transform" or "grid"."""
        needed = ("fixed", "moving", "transform") if mode == COMPARE_MOVING else ("fixed", "warped")
        for name in needed:
            node = getattr(nodes, name, None)
            if node is None or (name != "transform" and node.GetImageData() is None):
                return name
        return "" if mode == COMPARE_MOVING or sameGrid(nodes.fixed, nodes.warped) else "grid"

    def layers(self, mode: str, nodes: Any, sliceNode: Any, overlaid: bool) -> dict[str, Any]:
        """The slice composite node's properties for one view; `overlaid`: a colour map needs the foreground."""
        right = sliceNode.GetLayoutName() in [pair[1] for pair in layouts.PAIRS]
        if mode == SIDE_BY_SIDE:
            return _single(nodes.warped if right else nodes.fixed)
        if mode == COMPARE_MOVING:
            return _single(nodes.moving if right else nodes.fixed)
        if mode == FLICKER:
            return _single(nodes.warped if self.flipped else nodes.fixed)
        if mode == BLEND and not overlaid:
            return _double(nodes.fixed, nodes.warped, self.blendOpacity)
        composed = self._composedFor(mode, nodes, sliceNode)
        # The fixed scan stays beneath: a scene saved now and loaded without hidden volumes still shows it.
        return _single(composed.node) if overlaid else _double(nodes.fixed, composed.node, 1.0)

    def refresh(self, mode: str, nodes: Any) -> None:
        """Fill the volumes that are shown anew after a setting has changed."""
        for composed in self._composed.values():
            self._fill(composed, mode, nodes)

    def keepOnly(self, mode: str, overlaid: bool) -> None:
        """Remove the hidden volumes the mode has no use for."""
        for purpose in list(self._composed):
            if purpose.split()[0] != mode or (mode == BLEND and not overlaid):
                self._composed.pop(purpose).remove()
        if mode not in (BLEND, CHECKERBOARD, REVEAL):
            self._inFixedUnits = None

    def owns(self, node: Any) -> bool:
        """Whether this is one of the hidden volumes."""
        return any(composed.node is node for composed in self._composed.values())

    def followCursor(self, nodes: Any, world: Iterable[float]) -> None:
        """Move every reveal's border to a point in world RAS mm."""
        index = _continuousIndex(nodes.fixed, world)
        for purpose, composed in self._composed.items():
            if purpose.startswith(REVEAL):
                axis, sign = map(int, purpose.split()[1:])
                part = (index[axis] + 0.5) / composed.shape[axis]
                composed.reveal(axis, sign, part if sign > 0 else 1 - part)

    def _composedFor(self, mode: str, nodes: Any, sliceNode: Any) -> ComposedVolume:
        purpose = mode
        if mode == REVEAL:
            purpose = "{} {} {}".format(mode, *layouts.horizontalAxis(sliceNode, nodes.fixed))
        if purpose not in self._composed:
            if self._inFixedUnits is None:
                self._inFixedUnits = warpedInFixedUnits(nodes.fixed, nodes.warped)
            composed = ComposedVolume(self._scene, purpose, nodes.fixed, nodes.warped, self._inFixedUnits)
            self._composed[purpose] = composed
            self._fill(composed, mode, nodes)
        return self._composed[purpose]

    def _fill(self, composed: ComposedVolume, mode: str, nodes: Any) -> None:
        if mode == CHECKERBOARD:
            i, j, k = (self.checkerSizeMm / spacing for spacing in nodes.fixed.GetSpacing())
            composed.checkerboard((k, j, i))
        elif mode == REVEAL:
            axis, sign = map(int, composed.purpose.split()[1:])
            composed.reveal(axis, sign, self.revealPosition)
        elif mode == BLEND:
            composed.blend(self.blendOpacity)


def _single(volume: Any) -> dict[str, Any]:
    return {
        "BackgroundVolumeID": volume.GetID(),
        "ForegroundVolumeID": None,
        "ForegroundOpacity": 0.0,
        "Compositing": 0,
    }


def _double(background: Any, foreground: Any, opacity: float) -> dict[str, Any]:
    return {**_single(background), "ForegroundVolumeID": foreground.GetID(), "ForegroundOpacity": opacity}


def _continuousIndex(volume: Any, world: Iterable[float]) -> list[float]:
    """The point's place in the volume's array, (k, j, i) in voxels, through the volume's parent transforms."""
    point = list(world)
    parent = volume.GetParentTransformNode()
    if parent is not None:
        fromWorld = vtk.vtkGeneralTransform()
        parent.GetTransformFromWorld(fromWorld)
        point = list(fromWorld.TransformPoint(point))
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    i, j, k, _ = matrix.MultiplyPoint([*point, 1.0])
    return [k, j, i]
