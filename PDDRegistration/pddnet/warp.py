"""Spatial transforms in mm, and resampling through them.

Every transform here takes a point of the fixed scan to the corresponding point of the moving scan, both in mm, LPS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from pddnet.all_cores import share_out
from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry, Matrix
from pddnet.index_map import IndexMap, Shift
from pddnet.point_samples import sample_linear, sample_nearest, within
from pddnet.points import plane_slabs, slabs, transform_points_torch, transform_vectors_torch
from pddnet.sampling import grid_sample
from pddnet.separable import Separable, index_matrix, slope
from pddnet.volume import LabelMap, Volume

_ITK_HOLDS = 0.5  # cells

ImageT = TypeVar("ImageT", Volume, LabelMap)


@runtime_checkable
class SpatialTransform(Protocol):
    """Anything that takes fixed points to moving points."""

    def apply(self, points_lps: torch.Tensor) -> torch.Tensor:
        """Points (..., 3), float64, mm LPS, fixed -> moving."""
        ...


@dataclass(frozen=True)
class AffineTransform:
    """A linear map of fixed points to moving points: `matrix` is 4x4, mm LPS, on column vectors (x, y, z, 1)."""

    matrix: Matrix

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if (
            matrix.shape != (4, 4)
            or not np.isfinite(matrix).all()
            or not np.allclose(matrix[3], (0, 0, 0, 1))
        ):
            raise InputError(
                f"matrix is {matrix.tolist()}; a finite 4x4 affine matrix with last row 0 0 0 1 is needed"
            )
        if abs(np.linalg.det(matrix)) < 1e-6:
            raise InputError(
                f"matrix {matrix.tolist()} is singular; a transform that can be undone is needed"
            )
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def identity(cls) -> AffineTransform:
        """The transform that leaves points where they are."""
        return cls(np.eye(4))

    @classmethod
    def translation(cls, offset_mm: Sequence[float] | Matrix) -> AffineTransform:
        """A shift by (x, y, z) mm, LPS."""
        matrix = np.eye(4)
        matrix[:3, 3] = offset_mm
        return cls(matrix)

    def apply(self, points_lps: torch.Tensor) -> torch.Tensor:
        """Points (..., 3), mm LPS, fixed -> moving."""
        return transform_points_torch(self.matrix, points_lps)

    def followed_by(self, then: AffineTransform) -> AffineTransform:
        """The transform that applies this one first and `then` after it."""
        return AffineTransform(then.matrix @ self.matrix)

    def inverse(self) -> AffineTransform:
        """The transform from moving points to fixed points."""
        return AffineTransform(np.asarray(np.linalg.inv(self.matrix), dtype=np.float64))


@dataclass(frozen=True)
class Sequential:
    """Several transforms one after the other, the first one first."""

    transforms: tuple[SpatialTransform, ...]

    def apply(self, points_lps: torch.Tensor) -> torch.Tensor:
        """Points (..., 3), mm LPS, fixed -> moving."""
        for transform in self.transforms:
            points_lps = transform.apply(points_lps)
        return points_lps


def chained(first: SpatialTransform, then: SpatialTransform) -> SpatialTransform:
    """`first`, then `then`, as one affine transform where both are."""
    if isinstance(first, AffineTransform) and isinstance(then, AffineTransform):
        return first.followed_by(then)
    return Sequential((first, then))


@dataclass(frozen=True)
class DisplacementField:
    """Displacements on a grid, linear between its points, held constant beyond its border.

    Args:
        vectors: (D, H, W, 3), float32, mm, LPS (x, y, z): moving point minus fixed point.
        geometry: the grid the vectors lie on; usually much coarser than the scans.
        fixed_geometry: the grid `warp` resamples onto when none is named; the field's own by default.
    """

    vectors: torch.Tensor
    geometry: ImageGeometry
    fixed_geometry: ImageGeometry | None = None

    def __post_init__(self) -> None:
        if tuple(self.vectors.shape) != (*self.geometry.shape, 3):
            raise InputError(
                f"vectors have shape {tuple(self.vectors.shape)}; "
                f"(D, H, W, 3) = {(*self.geometry.shape, 3)} is needed to fit the geometry"
            )
        if not bool(torch.isfinite(self.vectors).all()):
            raise InputError(
                "the displacement field has vectors that are NaN or infinite; check where it came from"
            )
        object.__setattr__(self, "vectors", self.vectors.detach().to("cpu", torch.float32))

    @classmethod
    def sampled(
        cls, transform: SpatialTransform, geometry: ImageGeometry, fixed_geometry: ImageGeometry | None = None
    ) -> DisplacementField:
        """Any transform, sampled at the points of `geometry`."""
        vectors = torch.empty((*geometry.shape, 3))
        for rows, points in slabs(geometry):
            vectors[rows] = (transform.apply(points) - points).float()
        return cls(vectors, geometry, fixed_geometry)

    @cached_property
    def channels(self) -> torch.Tensor:
        """The vectors as (3, D, H, W)."""
        return self.vectors.permute(3, 0, 1, 2).contiguous()

    @cached_property
    def gradient(self) -> torch.Tensor:
        """d u_r / d x_c of the displacement, (D, H, W, 3, 3), no unit, both axes LPS.

        Central differences inside, one-sided at the border; the direction cosines are honoured.
        """
        from_lps = self.geometry.matrix(Frame.LPS, Frame.INDEX)[:3, :3]
        slopes = [slope(self.vectors, axis) for axis in (2, 1, 0)]  # along i, j, k: (D, H, W, 3) each
        by_index = torch.stack(slopes, -1)  # (D, H, W, 3 components, 3 grid axes)
        return by_index @ torch.as_tensor(from_lps, dtype=torch.float32)

    @cached_property
    def gradient_channels(self) -> torch.Tensor:
        """The gradient as (9, D, H, W), component by component."""
        return self.gradient.flatten(3).permute(3, 0, 1, 2).contiguous()

    def at(self, points_lps: torch.Tensor) -> torch.Tensor:
        """Displacement (..., 3) in mm LPS at points (..., 3), float64, mm LPS."""
        return self._sample(self.channels, points_lps)

    def gradient_at(self, points_lps: torch.Tensor) -> torch.Tensor:
        """`gradient` interpolated at points (..., 3): (..., 3, 3)."""
        return self._sample(self.gradient_channels, points_lps).reshape(*points_lps.shape[:-1], 3, 3)

    def apply(self, points_lps: torch.Tensor) -> torch.Tensor:
        """Points (..., 3), float64, mm LPS, fixed -> moving."""
        return points_lps + self.at(points_lps)

    def on(self, geometry: ImageGeometry) -> DisplacementField:
        """The same transform sampled on another grid."""
        separable = Separable.between(self.geometry, geometry)
        if separable is None:
            return DisplacementField.sampled(self, geometry, self.fixed_geometry)
        vectors = torch.empty((*geometry.shape, 3))
        for rows in plane_slabs(geometry.shape):
            vectors[rows] = separable.planes(self.channels, rows).movedim(0, -1)
        return DisplacementField(vectors, geometry, self.fixed_geometry)

    def covering_fixed(self) -> DisplacementField:
        """The field on its own grid, grown by whole cells until ITK sees all of `fixed_geometry` inside.

        Beyond a field's grid ITK holds the border's displacement for half a cell and then displaces nothing.
        """
        if self.fixed_geometry is None:
            return self
        grown = self.geometry.spanning(*self.geometry.index_range(self.fixed_geometry.corners(), _ITK_HOLDS))
        return self if grown.size == self.geometry.size else self.on(grown)

    def followed_by(self, then: SpatialTransform) -> DisplacementField:
        """This transform first, `then` after it, sampled on this field's grid."""
        return DisplacementField.sampled(Sequential((self, then)), self.geometry, self.fixed_geometry)

    def warp(
        self,
        moving: ImageT,
        onto: ImageGeometry | None = None,
        between_slabs: Callable[[], None] = lambda: None,
    ) -> ImageT:
        """The moving image seen from the fixed scan; see `resample`."""
        return resample(moving, onto or self.fixed_geometry or self.geometry, self, between_slabs)

    def _sample(self, channels: torch.Tensor, points_lps: torch.Tensor) -> torch.Tensor:
        index = transform_points_torch(self.geometry.matrix(Frame.LPS, Frame.INDEX), points_lps)
        return sample_linear(channels, index)


def resample(
    moving: ImageT,
    onto: ImageGeometry,
    transform: SpatialTransform,
    between_slabs: Callable[[], None] = lambda: None,
) -> ImageT:
    """Resample `moving` through `transform` onto the grid `onto`.

    Intensities are interpolated trilinearly, labels take the nearest voxel. Outside the moving scan the result is
    `moving.fill_value` for intensities and 0 for labels; a voxel reaches half a spacing beyond its centre, as in ITK.
    Affine transforms, and displacement fields whose axes run along those of `onto`, are followed in float32: right to
    1e-4 of a voxel. `between_slabs` is called between pieces of work, where a caller may stop.
    """
    data = moving.data.cpu()
    out = torch.empty(onto.shape, dtype=data.dtype)
    fill = moving.fill_value if isinstance(moving, Volume) else 0
    sample = _linear_at if isinstance(moving, Volume) else _nearest_at

    def fill_planes(rows: slice, index: torch.Tensor) -> None:
        outside = within(index, data.shape).logical_not_()
        out[rows] = sample(data, index)
        out[rows].masked_fill_(outside, fill)

    _for_indices(moving.geometry, onto, transform, fill_planes, between_slabs)
    return replace(moving, data=out, geometry=onto)


def sampled_on(
    volume: Volume, grid: ImageGeometry, between_slabs: Callable[[], None] = lambda: None
) -> Volume:
    """A volume of finite values on another grid of its space, linearly, its border held outside."""
    values = torch.empty(grid.shape)
    separable = Separable.between(volume.geometry, grid)
    if separable is not None:
        for rows in plane_slabs(grid.shape):
            values[rows] = separable.planes(volume.data[None], rows)[0]
            between_slabs()
        return Volume(values, grid)

    def fill_planes(rows: slice, index: torch.Tensor) -> None:
        values[rows] = _linear_at(volume.data, index)

    _for_indices(volume.geometry, grid, AffineTransform.identity(), fill_planes, between_slabs)
    return Volume(values, grid)


def _for_indices(
    scan: ImageGeometry,
    onto: ImageGeometry,
    transform: SpatialTransform,
    use: Callable[[slice, torch.Tensor], None],
    between_slabs: Callable[[], None],
) -> None:
    """Tell `use` where in `scan` planes of `onto` come to lie: index (3, d, H, W), float32 or float64."""
    along = _index_map(scan, onto, transform)
    if along is not None:
        parts = list(plane_slabs(onto.shape))

        def use_part(number: int) -> None:
            use(parts[number], along.index(parts[number]))

        share_out(len(parts), lambda _: use_part, torch.device("cpu"), between_slabs)
        return
    to_index = scan.matrix(Frame.LPS, Frame.INDEX)
    for rows, points in slabs(onto):
        use(rows, transform_points_torch(to_index, transform.apply(points)).movedim(-1, 0))
        between_slabs()


def _index_map(scan: ImageGeometry, onto: ImageGeometry, transform: SpatialTransform) -> IndexMap | None:
    """The map of a regular grid, where the transform has one."""
    if isinstance(transform, AffineTransform):
        return IndexMap(index_matrix(scan, onto, transform.matrix), onto.shape)
    if not isinstance(transform, DisplacementField):
        return None
    separable = Separable.between(transform.geometry, onto)
    if separable is None:
        return None
    voxels = transform_vectors_torch(scan.matrix(Frame.LPS, Frame.INDEX), transform.vectors)
    shift = Shift(voxels.movedim(-1, 0).contiguous(), separable)
    return IndexMap(index_matrix(scan, onto), onto.shape, shift)


def _linear_at(data: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Trilinear samples (d, H, W) at index (3, d, H, W), which is changed; the border value held outside."""
    if index.dtype == torch.float64:
        return sample_linear(data[None], index.movedim(0, -1)).squeeze(-1).to(data.dtype)
    size = torch.tensor(data.shape[::-1], dtype=index.dtype)[:, None, None, None]
    cube = index.mul_(2 / (size - 1).clamp(min=1)).sub_(1)
    return grid_sample(data[None], cube.movedim(0, -1))[0]


def _nearest_at(data: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return sample_nearest(data, index.movedim(0, -1))
