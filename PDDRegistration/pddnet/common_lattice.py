"""The lattice that control points and displacement labels share, where there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_OFF_LATTICE = 1e-4  # steps by which a position may miss its cell: single precision, and no more


@dataclass(frozen=True)
class CommonLattice:
    """Every point plus label is a cell: cell k * stride + d for point k and label d.

    Args:
        axes: positions of the cells along (z, y, x).
        strides: cells from point to point along (z, y, x).
    """

    axes: tuple[torch.Tensor, ...]
    strides: tuple[int, ...]

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return math.prod(len(axis) for axis in self.axes)


def common_lattice(axes: Sequence[torch.Tensor], offsets: Sequence[torch.Tensor]) -> CommonLattice | None:
    """The lattice of points at the product of `axes` and labels at that of `offsets`, both (z, y, x); None without one.

    There is one where points and labels are evenly spaced and the spacing is a whole multiple of the step.
    """
    strides = [_stride(axis, offset) for axis, offset in zip(axes, offsets, strict=True)]
    found = [stride for stride in strides if stride is not None]
    if len(found) < len(strides):
        return None
    return CommonLattice(tuple(_cells(*one) for one in zip(axes, offsets, found, strict=True)), tuple(found))


def _stride(axis: torch.Tensor, offset: torch.Tensor) -> int | None:
    spacing, step = _even_step(axis), _even_step(offset)
    if spacing is None or step is None:
        return None
    if len(axis) == 1 or len(offset) == 1:  # every position is a cell
        return len(offset)
    ratio = round(spacing / step) if spacing * step > 0 else 0
    fits = abs(spacing - ratio * step) * (len(axis) - 1) < _OFF_LATTICE * abs(step)
    return ratio if fits and ratio > 0 else None


def _even_step(positions: torch.Tensor) -> float | None:
    """The step of evenly spaced positions, 0 for a single one; None where they are uneven."""
    if len(positions) == 1:
        return 0.0
    step = float(positions[-1] - positions[0]) / (len(positions) - 1)
    even = positions[0] + step * torch.arange(len(positions), dtype=positions.dtype)
    return step if float((even - positions).abs().max()) <= _OFF_LATTICE * abs(step) else None


def _cells(axis: torch.Tensor, offset: torch.Tensor, stride: int) -> torch.Tensor:
    if len(axis) == 1 or len(offset) == 1:
        return (axis[:, None] + offset).flatten()
    count = (len(axis) - 1) * stride + len(offset)
    step = (axis[-1] - axis[0]) / ((len(axis) - 1) * stride)
    return axis[0] + offset[0] + step * torch.arange(count, dtype=axis.dtype)
