"""Linear interpolation between grids whose axes run alike: a matrix product along each axis, no point by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pddnet.geometry import Frame, ImageGeometry, Matrix

Shape = tuple[int, int, int]
Axes = list[tuple[float, float]]

_OFF_AXIS = 1e-4  # voxels by which axes that run alike may part over a whole grid


@dataclass(frozen=True)
class Separable:
    """The weights of trilinear interpolation from one grid to another, axis by axis.

    Args:
        weights: (target points, source points) along z, y and x, float32.
    """

    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    @classmethod
    def between(
        cls, source: ImageGeometry, target: ImageGeometry, beyond: Literal["hold", "zero"] = "hold"
    ) -> Separable | None:
        """From the points of `source` to those of `target`; None where their axes do not run alike.

        Args:
            beyond: whether a source grid's border is held outside it, or falls to 0 within one voxel.
        """
        axes = along_axes(index_matrix(source, target), target.size)
        return None if axes is None else cls.along(source.shape, target.shape, axes, beyond)

    @classmethod
    def along(
        cls, source: Shape, target: Shape, axes: Axes, beyond: Literal["hold", "zero"] = "hold"
    ) -> Separable:
        """From a grid of `source` (D, H, W) points to `target` points, whose indices `axes` say; see `along_axes`."""
        z, y, x = (
            _weights(n, count, start, step, beyond)
            for n, count, (start, step) in zip(source, target, reversed(axes), strict=True)
        )
        return cls((z, y, x))

    def planes(self, values: torch.Tensor, rows: slice) -> torch.Tensor:
        """Values (C, D, H, W) of the source grid, finite, at some planes of the target: (C, d, H', W')."""
        z, y, x = self.weights
        return _product(values, z[rows], y, x)

    def planes_of_slopes(self, values: torch.Tensor, rows: slice) -> tuple[torch.Tensor, ...]:
        """As `planes`, but differences per step of the target along its x, y and z: three of (C, d, H', W').

        They are central, one-sided at the target's border, and 0 across a target of one plane.
        """
        first, last = max(0, rows.start - 1), min(len(self.weights[0]), rows.stop + 1)
        around = self.planes(values, slice(first, last))
        here = slice(rows.start - first, rows.stop - first)
        inside = around[:, here]
        return slope(inside, 3), slope(inside, 2), slope(around, 1)[:, here]


def index_matrix(source: ImageGeometry, target: ImageGeometry, through: Matrix | None = None) -> Matrix:
    """The 4x4 matrix from an index of `target` to the continuous index of `source` at that place.

    Args:
        through: 4x4, mm LPS, from points of the target's space to the source's, where they differ.
    """
    to_lps = target.matrix(Frame.INDEX, Frame.LPS)
    matrix: Matrix = source.matrix(Frame.LPS, Frame.INDEX) @ (to_lps if through is None else through @ to_lps)
    return matrix


def along_axes(matrix: Matrix, size: tuple[int, int, int]) -> Axes | None:
    """An index matrix as (start, step) along x, y and z; None where it mixes the axes of a grid of `size`."""
    turned = np.abs(matrix[:3, :3] - np.diag(matrix.diagonal()[:3])) * np.asarray(size)
    if turned.max() > _OFF_AXIS:
        return None
    return [(float(matrix[a, 3]), float(matrix[a, a])) for a in range(3)]


def _weights(n: int, count: int, start: float, step: float, beyond: Literal["hold", "zero"]) -> torch.Tensor:
    at = start + step * torch.arange(count, dtype=torch.float64)
    if beyond == "hold":
        at = at.clamp(0, n - 1)
    distance = (at[:, None] - torch.arange(n, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0).float()


def slope(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Differences between neighbours along an axis: central, one-sided at its ends."""
    n = values.shape[axis]
    if n < 2:
        return torch.zeros_like(values)
    out = torch.empty_like(values)
    torch.sub(values.narrow(axis, 1, 1), values.narrow(axis, 0, 1), out=out.narrow(axis, 0, 1))
    torch.sub(values.narrow(axis, n - 1, 1), values.narrow(axis, n - 2, 1), out=out.narrow(axis, n - 1, 1))
    inner = out.narrow(axis, 1, n - 2)
    torch.sub(values.narrow(axis, 2, n - 2), values.narrow(axis, 0, n - 2), out=inner).mul_(0.5)
    return out


def _product(values: torch.Tensor, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The longest products first, while there are few numbers: along x, along y, then along z."""
    used = z.abs().sum(0).nonzero().flatten()
    if not len(used):
        return values.new_zeros((values.shape[0], len(z), len(y), len(x)))
    low, high = int(used[0]), int(used[-1]) + 1
    z, y, x = (weights.to(values) for weights in (z[:, low:high], y, x))
    lines = values[:, low:high] @ x.T  # (C, d, H, W')
    planes = (y @ lines).flatten(2)  # (C, d, H' W')
    return torch.matmul(z, planes).view(values.shape[0], len(z), len(y), len(x))
