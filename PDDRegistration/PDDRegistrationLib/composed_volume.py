"""One volume out of fixed and warped: checkerboard, reveal, blend. Values are the fixed scan's own units."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from .auxiliary import auxiliaryNode, removeAuxiliary

_SLAB_VALUES = 1 << 18  # values worked on at a time, so that they stay in the processor's cache


class ComposedVolume:
    """A hidden volume node on the fixed grid that is filled from `fixed` and `warped`.

    `fixed` and `warped` are volume nodes on the same grid. The warped scan is shown in the fixed scan's units:
    its window becomes the fixed scan's window, so that each looks as it does alone. Memory: one array of the
    fixed scan's type, and one more where the two windows differ.
    """

    def __init__(self, scene: Any, purpose: str, fixed: Any, warped: Any, inFixedUnits: Any):
        """`inFixedUnits`: array of the warped scan from `warpedInFixedUnits`."""
        self._scene, self.purpose = scene, purpose
        self._fixed = slicer.util.arrayFromVolume(fixed)
        self._warped = inFixedUnits
        self._split: tuple[int, int, int] | None = None
        self.node = self._makeNode(fixed, warped)
        self._shown = slicer.util.arrayFromVolume(self.node)
        display, dtype = self.node.GetDisplayNode(), self._shown.dtype
        self._white = _within(np.float32(display.GetLevel() + display.GetWindow() / 2), dtype).astype(dtype)

    def _makeNode(self, fixed: Any, warped: Any) -> Any:
        node = auxiliaryNode(self._scene, "vtkMRMLScalarVolumeNode", self.purpose)
        node.SetName(f"{fixed.GetName()} + {warped.GetName()}")  # seen in the corner of the slice views
        node.CopyOrientation(fixed)
        node.SetAndObserveTransformNodeID(fixed.GetTransformNodeID())
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetSaveWithScene(False)
        display, source = node.GetDisplayNode(), fixed.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(source.GetWindow(), source.GetLevel())
        display.SetInterpolate(source.GetInterpolate())
        display.SetAndObserveColorNodeID(source.GetColorNodeID())
        slicer.util.updateVolumeFromArray(node, self._fixed)
        return node

    def checkerboard(self, tiles: tuple[float, float, float]) -> None:
        """Tiles of fixed and warped in turn; `tiles` is their size in voxels along k, j, i."""
        parity = [
            (np.arange(count) // max(size, 1.0)).astype(np.int64) & 1
            for count, size in zip(self._shown.shape, tiles, strict=True)
        ]
        odd = (parity[1][:, None] ^ parity[2][None, :]).astype(bool)  # (J, I)
        for k, plane in enumerate(self._shown):
            np.copyto(plane, self._fixed[k])
            np.copyto(plane, self._warped[k], where=odd ^ bool(parity[0][k]))
        self._done()

    def reveal(self, axis: int, sign: int, position: float) -> None:
        """Fixed on the screen's left, warped on its right, a bright line between them.

        `position` is 0 (all warped) to 1 (all fixed); `axis` and `sign` are those of `layouts.horizontalAxis`.
        Only what changes since the last call is copied.
        """
        count = self._shown.shape[axis]
        border = round(np.clip(position, 0, 1) * count)
        border = border if sign > 0 else count - border
        first, last = 0, count
        if self._split is not None and self._split[:2] == (axis, sign):
            first, last = (
                min(border, self._split[2]),
                max(border, self._split[2]) + 1,
            )  # the line is redrawn as well
        self._split = axis, sign, border
        low, high = (self._fixed, self._warped) if sign > 0 else (self._warped, self._fixed)
        for source, start, stop in ((low, first, min(border, last)), (high, max(border, first), last)):
            part = (slice(None),) * axis + (slice(start, max(start, stop)),)
            self._shown[part] = source[part]
        if 0 < border < count:
            self._shown[(slice(None),) * axis + (border,)] = self._white
        self._done()

    def blend(self, opacity: float) -> None:
        """`opacity` of the warped scan over the fixed one."""
        shown, fixed, warped = (array.reshape(-1) for array in (self._shown, self._fixed, self._warped))
        weight = np.float32(np.clip(opacity, 0, 1))
        for start in range(0, shown.size, _SLAB_VALUES):
            part = slice(start, start + _SLAB_VALUES)
            mixed = warped[part].astype(np.float32)
            mixed -= fixed[part]
            mixed *= weight
            mixed += fixed[part]
            np.copyto(shown[part], mixed, casting="unsafe")
        self._done()

    def _done(self) -> None:
        slicer.util.arrayFromVolumeModified(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of the array along k, j, i."""
        return tuple(self._shown.shape)

    def remove(self) -> None:
        """Take the node out of the scene and let go of the arrays."""
        removeAuxiliary(self._scene, self.purpose)
        self._fixed = self._warped = self._shown = np.empty((0, 0, 0))


def sameGrid(first: Any, second: Any) -> bool:
    """Whether two volume nodes have arrays of the same size."""
    images = first.GetImageData(), second.GetImageData()
    return None not in images and images[0].GetDimensions() == images[1].GetDimensions()


def warpedInFixedUnits(fixed: Any, warped: Any) -> Any:
    """The array of `warped` so that it looks in the fixed scan's window as it does in its own.

    The array itself where both windows are the same, otherwise a copy of the fixed scan's type.
    """
    array = slicer.util.arrayFromVolume(warped)
    dtype = slicer.util.arrayFromVolume(fixed).dtype
    shown, source = fixed.GetDisplayNode(), warped.GetDisplayNode()
    slope = shown.GetWindow() / source.GetWindow() if source.GetWindow() else 1.0
    offset = shown.GetLevel() - source.GetLevel() * slope
    if array.dtype == dtype and slope == 1.0 and offset == 0.0:
        return array
    result = np.empty(array.shape, dtype)
    flat, source = result.reshape(-1), array.reshape(-1)
    for start in range(0, flat.size, _SLAB_VALUES):
        part = slice(start, start + _SLAB_VALUES)
        values = source[part].astype(np.float32)
        values *= np.float32(slope)
        values += np.float32(offset)
        np.copyto(flat[part], _within(values, dtype), casting="unsafe")
    return result


def _within(values: Any, dtype: Any) -> Any:
    """float32 values that the type can hold, rounded for whole numbers."""
    if not np.issubdtype(dtype, np.integer):
        return values
    limits = np.iinfo(dtype)
    return np.clip(
        np.rint(values), np.float32(limits.min), np.nextafter(np.float32(limits.max), np.float32(0))
    )
