"""From a field in working voxels to displacements in mm that cover the fixed scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import random_geometry, seeds
from pddnet.geometry import ImageGeometry
from pddnet.grids import working_geometry
from pddnet.results import displacement_in_mm, uncertainty_in_mm
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, DisplacementField, Sequential, SpatialTransform

NOTHING = AffineTransform.identity()


def half_of(grid: ImageGeometry) -> ImageGeometry:
    return grid.coarsened((2, 2, 2))


def random_start(rng: np.random.Generator) -> AffineTransform:
    matrix = np.eye(4)
    matrix[:3, :3] += 0.1 * rng.normal(size=(3, 3))
    matrix[:3, 3] = rng.normal(size=3, scale=30)
    return AffineTransform(matrix)


@examples(max_examples=25)
@given(seeds)
def test_the_field_covers_the_fixed_field_of_view_to_the_edges_of_its_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng, 6, 40)
    grid = working_geometry(fixed, fixed, np.eye(4), float(rng.uniform(0.8, 2)), 10**6)
    low = rng.integers(0, 10, 3)
    cropped = grid.cropped([int(n) for n in low], [16, 16, 16])  # as cropping to the body leaves it
    forward = torch.from_numpy(rng.normal(size=(3, 8, 8, 8))).float()
    found = displacement_in_mm(forward, cropped, fixed, NOTHING)
    index = found.geometry.to_index(fixed.corners())
    assert index.min() > -1e-4
    assert (index < np.asarray(found.geometry.size) - 1 + 1e-4).all()
    assert found.fixed_geometry == fixed
    offset = found.geometry.to_index(half_of(cropped).origin)
    np.testing.assert_allclose(offset, offset.round(), atol=1e-6)  # the same lattice, only larger


def test_a_field_that_covers_the_fixed_scan_already_is_not_grown() -> None:
    fixed = ImageGeometry((20, 20, 20))
    grid = fixed.cropped((-6, -6, -6), (32, 32, 32))
    found = displacement_in_mm(torch.zeros(3, 16, 16, 16), grid, fixed, NOTHING)
    assert found.geometry.is_close(half_of(grid))


@pytest.mark.parametrize("bent", [False, True])
def test_a_point_goes_through_the_field_and_then_through_the_start(
    bent: bool, oblique_geometry: ImageGeometry
) -> None:
    rng = np.random.default_rng(3)
    grid = oblique_geometry.cropped((-4, -4, -2), (16, 16, 16))
    forward = torch.from_numpy(rng.normal(size=(3, 8, 8, 8))).float()
    affine = random_start(rng)
    start: SpatialTransform = affine
    if bent:
        start = Sequential((affine, AffineTransform.translation((1.0, 2.0, 3.0))))
    found = displacement_in_mm(forward, grid, oblique_geometry, start)
    lattice = half_of(grid)
    for k, j, i in np.ndindex(3, 4, 5):
        x = lattice.to_lps((i, j, k))
        voxels = grid.to_index(x) + forward[:, k, j, i].numpy()  # d(x) in working voxels
        expected = start.apply(torch.as_tensor(grid.to_lps(voxels)))
        np.testing.assert_allclose(found.apply(torch.as_tensor(x)), expected, atol=1e-4)
        swapped = affine.apply(torch.as_tensor(x)).numpy() + grid.to_lps(voxels) - x
        assert np.abs(swapped - expected.numpy()).max() > 1e-3  # the start first would be another transform


def test_beyond_the_working_grid_the_displacement_of_its_border_is_held() -> None:
    fixed = ImageGeometry((40, 16, 16))
    grid = fixed.cropped((16, 0, 0), (16, 16, 16))
    forward = torch.zeros(3, 8, 8, 8)
    forward[0] = torch.linspace(1, 2, 8)
    found = displacement_in_mm(forward, grid, fixed, NOTHING)
    at = found.at(torch.tensor([[0.0, 7.0, 7.0], [39.0, 7.0, 7.0]], dtype=torch.float64))[:, 0]
    torch.testing.assert_close(at, torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_the_uncertainty_is_in_mm_and_nats_on_the_same_lattice_as_the_field() -> None:
    fixed = ImageGeometry((30, 17, 20), (2.0, 2.0, 2.0), (5.0, 6.0, 7.0))
    grid = fixed.cropped((4, 0, 0), (16, 16, 16))
    spread = torch.stack((torch.full((8, 8, 8), 9.0), torch.full((8, 8, 8), 1.25)))
    found = uncertainty_in_mm(spread, grid, fixed)
    assert found.std_mm.geometry == found.entropy.geometry
    assert found.std_mm.geometry == displacement_in_mm(torch.zeros(3, 8, 8, 8), grid, fixed, NOTHING).geometry
    torch.testing.assert_close(
        found.std_mm.data, torch.full(found.std_mm.geometry.shape, 6.0)
    )  # 3 voxels of 2 mm
    torch.testing.assert_close(found.entropy.data, torch.full(found.entropy.geometry.shape, 1.25))


def test_warping_lands_on_the_fixed_grid() -> None:
    fixed = ImageGeometry((9, 11, 10), (2.0, 2.0, 2.0))
    grid = fixed.cropped((-2, -2, -2), (16, 16, 16))
    found: DisplacementField = displacement_in_mm(torch.zeros(3, 8, 8, 8), grid, fixed, NOTHING)
    scan = Volume(torch.rand(fixed.shape), fixed)
    warped = found.warp(scan)
    assert warped.geometry == fixed
    torch.testing.assert_close(warped.data, scan.data)
