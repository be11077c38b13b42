"""A scan sampled on one working grid after another: averaged first where a grid is coarse, copied where nothing moves.

The slow way, point by point, is left for transforms that are not affine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.geometry import Frame, ImageGeometry, Matrix, transform_points
from pddnet.index_map import IndexMap
from pddnet.points import SLAB_POINTS, plane_slabs, slabs, transform_points_torch
from pddnet.sampling import block_mean, grid_sample
from pddnet.separable import Separable, along_axes, index_matrix
from pddnet.warp import AffineTransform, SpatialTransform

_SAME_VOXEL = 1e-4  # voxels by which a grid may part from the scan's own over its whole length
_Window = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Samples:
    """What a part of a grid sees of a scan.

    Args:
        window: where the part lies in the grid, (D, H, W).
        values: (d, h, w), the scan's, 0 beyond its outer voxels.
        weight: which share of the interpolation weights fell on voxels of the scan, broadcast to (d, h, w).
        allowed: the same for voxels that the mask allows.
    """

    window: _Window
    values: torch.Tensor
    weight: torch.Tensor
    allowed: torch.Tensor


@dataclass(frozen=True)
class _Blocks:
    """A scan averaged over blocks of voxels; both (C, D, H, W), `allowed` None without a mask."""

    image: torch.Tensor
    allowed: torch.Tensor | None
    geometry: ImageGeometry


@dataclass(frozen=True)
class ScanSampler:
    """A scan that several grids ask for.

    Args:
        image: (D, H, W), finite.
        allowed: (D, H, W), not 0 where the scan counts; None for everywhere.
        geometry: of both.
        device: where the samples are needed.
    """

    image: torch.Tensor
    allowed: torch.Tensor | None
    geometry: ImageGeometry
    device: torch.device
    _averaged: dict[tuple[int, ...], _Blocks] = field(default_factory=dict, repr=False, compare=False)

    def samples(self, grid: ImageGeometry, transform: SpatialTransform) -> Iterator[Samples]:
        """All parts of `grid` that see something of the scan through `transform` (grid -> scan point, mm LPS).

        A scan much finer than the grid is averaged over whole voxel blocks first, so that nothing aliases.
        """
        blocks = self._blocks_for(grid)
        if not isinstance(transform, AffineTransform):
            yield from _by_points(blocks, grid, transform)
            return
        window = _window_of(blocks.geometry, grid, transform.matrix)
        if any(axis.stop <= axis.start for axis in window):
            return
        corner, size = [w.start for w in reversed(window)], [w.stop - w.start for w in reversed(window)]
        part = grid.cropped(corner, size)
        matrix = index_matrix(blocks.geometry, part, transform.matrix)
        axes = along_axes(matrix, part.size)
        if axes is None:
            found = _by_matrix(blocks, IndexMap(matrix, part.shape))
        elif all(_is_same(start, step, n) for (start, step), n in zip(axes, part.size, strict=True)):
            found = _copied(blocks, part, [round(start) for start, _ in reversed(axes)])
        else:
            found = _along_axes(blocks, Separable.along(blocks.geometry.shape, part.shape, axes, "zero"))
        for sample in found:
            yield Samples(_moved(sample.window, corner[::-1]), sample.values, sample.weight, sample.allowed)

    def _blocks_for(self, grid: ImageGeometry) -> _Blocks:
        ratios = zip(grid.spacing, self.geometry.spacing, strict=True)
        factors = tuple(max(1, int(wide / fine + 1e-3)) for wide, fine in ratios)
        if factors not in self._averaged:
            allowed = None if self.allowed is None else (self.allowed != 0).to(self.device, torch.float32)
            geometry = self.geometry.coarsened(factors)
            image = _block_mean(self.image.to(self.device), factors)
            self._averaged[factors] = _Blocks(
                image[None], None if allowed is None else _block_mean(allowed, factors)[None], geometry
            )
        return self._averaged[factors]


def _window_of(scan: ImageGeometry, grid: ImageGeometry, to_scan: Matrix) -> _Window:
    """The part of `grid` that holds all points within a voxel of the scan's outer ones, (D, H, W)."""
    around = scan.cropped((-1, -1, -1), [n + 2 for n in scan.size])
    index = grid.to_index(transform_points(np.asarray(np.linalg.inv(to_scan)), around.corners()))
    low = np.clip(np.floor(index.min(0)), 0, grid.size).astype(int)
    high = np.clip(np.ceil(index.max(0)) + 1, 0, grid.size).astype(int)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _is_same(start: float, step: float, n: int) -> bool:
    return abs(start - round(start)) < _SAME_VOXEL and abs(step - 1) * n < _SAME_VOXEL


def _copied(blocks: _Blocks, part: ImageGeometry, first: list[int]) -> Iterator[Samples]:
    """The voxels themselves: `first` is the scan's index (z, y, x) of the part's first point."""
    sizes = zip(first, blocks.image.shape[1:], part.shape, strict=True)
    z, y, x = (slice(max(0, -start), max(0, -start, min(count, n - start))) for start, n, count in sizes)
    one = torch.ones((1, 1, 1), device=blocks.image.device)
    for rows in plane_slabs((z.stop - z.start, part.shape[1], part.shape[2])):
        window = (slice(z.start + rows.start, z.start + rows.stop), y, x)
        voxels = _moved(window, first)
        allowed = one if blocks.allowed is None else blocks.allowed[0][voxels]
        yield Samples(window, blocks.image[0][voxels].clone(), one, allowed)


def _along_axes(blocks: _Blocks, separable: Separable) -> Iterator[Samples]:
    z, y, x = (weights.sum(1).to(blocks.image.device) for weights in separable.weights)
    for rows in plane_slabs((len(z), len(y), len(x))):
        weight = z[rows, None, None] * (y[:, None] * x)
        allowed = weight if blocks.allowed is None else separable.planes(blocks.allowed, rows)[0]
        window = (rows, slice(0, len(y)), slice(0, len(x)))
        yield Samples(window, separable.planes(blocks.image, rows)[0], weight, allowed)


def _by_matrix(blocks: _Blocks, index_map: IndexMap) -> Iterator[Samples]:
    for rows in plane_slabs(index_map.shape):
        yield _sampled(blocks, rows, index_map.index(rows, blocks.image.device))


def _by_points(blocks: _Blocks, grid: ImageGeometry, transform: SpatialTransform) -> Iterator[Samples]:
    to_index = blocks.geometry.matrix(Frame.LPS, Frame.INDEX)
    for rows, points in slabs(grid, SLAB_POINTS):
        index = transform_points_torch(to_index, transform.apply(points)).movedim(-1, 0)
        yield _sampled(blocks, rows, index.to(blocks.image.device, torch.float32))


def _sampled(blocks: _Blocks, rows: slice, index: torch.Tensor) -> Samples:
    """Samples at continuous indices (3, d, H, W), which are changed."""
    size = torch.tensor(blocks.geometry.size, dtype=torch.float32, device=index.device)[:, None, None, None]
    cube = index.mul_(2 / size).add_(1 / size - 1)  # -1 and 1 at the outer voxel edges
    # 1 from the first to the last voxel, from there down to 0 within one
    ramps = torch.addcmul((size + 1) / 2, cube.abs(), -size / 2).clamp_(0, 1)
    weight = ramps[0].mul_(ramps[1]).mul_(ramps[2])
    cube = cube.movedim(0, -1)
    image, allowed = (
        None if x is None else grid_sample(x, cube, padding_mode="zeros", align_corners=False)[0]
        for x in (blocks.image, blocks.allowed)
    )
    assert image is not None  # only a mask may be missing
    window = (rows, slice(0, index.shape[2]), slice(0, index.shape[3]))
    return Samples(window, image, weight, weight if allowed is None else allowed)


def _moved(window: _Window, by: Sequence[int]) -> _Window:
    z, y, x = (slice(w.start + n, w.stop + n) for w, n in zip(window, by, strict=True))
    return z, y, x


def _block_mean(values: torch.Tensor, factors: tuple[int, ...]) -> torch.Tensor:
    """Mean over blocks of `factors` (x, y, z) voxels of (D, H, W); those cut by the border over what there is."""
    if max(factors) == 1:
        return values
    deep = factors[2]
    shape = tuple(-(-n // block) for n, block in zip(values.shape, factors[::-1], strict=True))
    out = values.new_empty(shape)
    for rows in plane_slabs((shape[0], values.shape[1], values.shape[2])):
        out[rows] = _mean_of_planes(values[rows.start * deep : rows.stop * deep], factors[::-1])
    return out


def _mean_of_planes(values: torch.Tensor, blocks: tuple[int, ...]) -> torch.Tensor:
    odd = [(-n) % block for n, block in zip(values.shape, blocks, strict=True)]
    padding = [n for missing in reversed(odd) for n in (0, missing)]
    mean = block_mean(F.pad(values, padding) if any(odd) else values, blocks)
    for axis, (missing, block) in enumerate(zip(odd, blocks, strict=True)):
        if missing:
            mean.select(axis, -1).mul_(block / (block - missing))
    return mean
