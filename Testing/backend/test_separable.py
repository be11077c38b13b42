"""Interpolation along axes, and index maps: the same as point by point, on grids that run along, back or across."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import (
    covering_geometry,
    noise,
    random_affine_matrix,
    random_field,
    random_geometry,
    seeds,
)
from backend.oracles.pointwise import Pointwise
from pddnet import metrics
from pddnet.geometry import Frame, ImageGeometry
from pddnet.index_map import IndexMap, Shift
from pddnet.point_samples import inside, sample_linear, within
from pddnet.points import slabs, transform_points_torch
from pddnet.separable import Separable, along_axes, index_matrix
from pddnet.warp import DisplacementField, sampled_on


def flipped(grid: ImageGeometry, axis: int) -> ImageGeometry:
    """The same points in the opposite order along an axis."""
    corner = np.zeros(3)
    corner[axis] = grid.size[axis] - 1
    signs = np.ones(3)
    signs[axis] = -1
    rows = tuple(tuple(row) for row in np.asarray(grid.direction) * signs)
    return replace(grid, origin=tuple(grid.to_lps(corner)), direction=rows)  # type: ignore[arg-type]


def like(rng: np.random.Generator, grid: ImageGeometry) -> ImageGeometry:
    """Another grid along the same axes, partly outside, sometimes in the opposite order."""
    spacing = tuple(rng.uniform(0.3, 2.5, 3) * grid.spacing)
    size = rng.integers(2, 15, 3)
    other = replace(grid, size=tuple(size), spacing=spacing, origin=tuple(grid.to_lps(rng.uniform(-3, 3, 3))))
    return flipped(other, int(rng.integers(3))) if rng.random() < 0.5 else other


def index_of(source: ImageGeometry, target: ImageGeometry) -> torch.Tensor:
    """Index (D, H, W, 3) of `source` at the points of `target`, float64, point by point."""
    points = torch.cat([points for _, points in slabs(target)])
    return transform_points_torch(source.matrix(Frame.LPS, Frame.INDEX), points)


@examples(max_examples=25)
@given(seeds)
def test_along_the_axes_the_border_is_held_as_point_by_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = random_geometry(rng)
    target, values = like(rng, source), torch.from_numpy(rng.normal(size=(2, *source.shape))).float()
    separable = Separable.between(source, target)
    assert separable is not None
    expected = sample_linear(values, index_of(source, target)).movedim(-1, 0)
    found = torch.cat([separable.planes(values, slice(k, k + 1)) for k in range(target.shape[0])], 1)
    npt.assert_allclose(found, expected, atol=2e-5)
    if min(target.shape) > 2:
        assert float((found.flip(1) - expected).abs().max()) > 1e-2


@examples(max_examples=25)
@given(seeds)
def test_along_the_axes_values_fade_to_zero_as_grid_sample_pads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = random_geometry(rng)
    target, values = like(rng, source), torch.from_numpy(rng.normal(size=(1, *source.shape))).float()
    separable = Separable.between(source, target, "zero")
    assert separable is not None
    cube = 2 * (index_of(source, target) + 0.5) / torch.tensor(source.size) - 1
    expected = F.grid_sample(values[None].double(), cube[None], padding_mode="zeros", align_corners=False)[0]
    npt.assert_allclose(separable.planes(values, slice(0, target.shape[0])), expected, atol=2e-5)


def test_grids_across_each_other_are_not_separable() -> None:
    rng = np.random.default_rng(0)
    assert Separable.between(random_geometry(rng), random_geometry(rng)) is None
    grid = ImageGeometry((100, 100, 100))
    turned = replace(grid, direction=((1.0, 1e-5, 0.0), (-1e-5, 1.0, 0.0), (0.0, 0.0, 1.0)))
    assert Separable.between(grid, turned) is None  # 1e-3 voxels apart at the far end
    assert along_axes(index_matrix(grid, replace(grid, spacing=(2.0, 1.0, 1.0))), grid.size) == [
        (0.0, 2.0),
        (0.0, 1.0),
        (0.0, 1.0),
    ]


@examples(max_examples=25)
@given(seeds)
def test_an_index_map_is_the_matrix_at_each_point_plus_the_displacement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed, moving = random_geometry(rng), random_geometry(rng)
    field = random_field(rng, covering_geometry(fixed))
    separable = Separable.between(field.geometry, fixed)
    assert separable is not None
    to_index = moving.matrix(Frame.LPS, Frame.INDEX)
    voxels = field.vectors.double() @ torch.from_numpy(to_index[:3, :3]).T
    shift = Shift(voxels.float().movedim(-1, 0).contiguous(), separable)
    rows = slice(1, fixed.shape[0] - 1)
    found = IndexMap(index_matrix(moving, fixed), fixed.shape, shift).index(rows)
    points = torch.cat([points for _, points in slabs(fixed)])[rows]
    expected = transform_points_torch(to_index, field.apply(points))
    npt.assert_allclose(found.movedim(0, -1), expected, atol=1e-4)
    without = IndexMap(index_matrix(moving, fixed), fixed.shape).index(rows)
    npt.assert_allclose(without.movedim(0, -1), transform_points_torch(to_index, points), atol=1e-4)


def test_far_from_the_origin_and_on_large_grids_an_index_is_right_to_a_ten_thousandth() -> None:
    rng = np.random.default_rng(1)
    fixed = replace(random_geometry(rng), size=(512, 400, 600), spacing=(0.7, 0.8, 0.9))
    matrix = random_affine_matrix(rng, fixed, 0.05)
    moving = replace(fixed, size=(600, 512, 500))
    to_moving = index_matrix(moving, fixed, matrix)
    for rows in (slice(0, 1), slice(599, 600)):
        found = IndexMap(to_moving, fixed.shape).index(rows).movedim(0, -1)
        k, j, i = torch.meshgrid(
            *(torch.arange(n, dtype=torch.float64) for n in (1, 400, 512)), indexing="ij"
        )
        expected = transform_points_torch(to_moving, torch.stack((i, j, k + rows.start), -1))
        assert float((found - expected).abs().max()) < 1e-4


def test_within_reaches_to_the_outer_edges_of_voxels() -> None:
    index = torch.rand((3, 4, 5, 6), generator=torch.Generator().manual_seed(0)) * 10 - 2
    expected = inside(index.movedim(0, -1).double(), (6, 5, 4))
    assert torch.equal(within(index, (6, 5, 4)), expected)
    assert expected.any()
    assert not expected.all()


@examples(max_examples=25)
@given(seeds)
def test_the_determinant_along_the_axes_is_that_of_the_sampled_field(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng)
    if rng.random() < 0.3:
        fixed = flipped(fixed, 1)
    field = random_field(rng, covering_geometry(fixed), mm=0.7)
    there = DisplacementField.sampled(Pointwise(field), fixed)
    expected = torch.linalg.det(there.gradient.double() + torch.eye(3))
    npt.assert_allclose(metrics.jacobian_determinant(field, fixed).data, expected, atol=2e-4)
    mirrored = DisplacementField(-field.vectors, field.geometry)
    assert float((metrics.jacobian_determinant(mirrored, fixed).data - expected).abs().max()) > 1e-2


def test_across_the_axes_the_determinant_is_that_of_the_sampled_field_too() -> None:
    rng = np.random.default_rng(3)
    fixed = random_geometry(rng)
    field = random_field(rng, random_geometry(rng), mm=0.7)
    field = replace(field, geometry=replace(field.geometry, origin=fixed.origin))
    expected = torch.linalg.det(DisplacementField.sampled(Pointwise(field), fixed).gradient + torch.eye(3))
    npt.assert_allclose(metrics.jacobian_determinant(field, fixed).data, expected, atol=2e-4)


@pytest.mark.parametrize("across", [False, True])
def test_a_volume_on_another_grid_is_that_of_each_point(across: bool) -> None:
    rng = np.random.default_rng(4)
    coarse = noise(rng, random_geometry(rng))
    grid = random_geometry(rng) if across else like(rng, coarse.geometry)
    grid = replace(grid, origin=coarse.geometry.origin)
    expected = sample_linear(coarse.data[None], index_of(coarse.geometry, grid))[..., 0]
    npt.assert_allclose(sampled_on(coarse, grid).data, expected, atol=1e-5)


def test_a_field_on_a_finer_grid_along_its_axes_is_that_of_each_point() -> None:
    rng = np.random.default_rng(5)
    fixed = random_geometry(rng)
    field = random_field(rng, covering_geometry(fixed), mm=30.0)
    npt.assert_allclose(
        field.on(fixed).vectors, DisplacementField.sampled(Pointwise(field), fixed).vectors, atol=1e-4
    )
    other = random_geometry(rng)
    expected = DisplacementField.sampled(Pointwise(field), other).vectors
    npt.assert_allclose(field.on(other).vectors, expected, atol=1e-4)
