"""The grids a registration works on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import random_geometry, seeds
from pddnet.config import load_preset
from pddnet.geometry import ImageGeometry
from pddnet.grids import coarse_grids, working_geometry
from pddnet.warp import AffineTransform


def covers(grid: ImageGeometry, other: ImageGeometry, tolerance: float = 1e-3) -> bool:
    index = grid.to_index(other.corners())
    return bool(
        (index >= -0.5 - tolerance).all() and (index <= np.asarray(grid.size) - 0.5 + tolerance).all()
    )


@examples(max_examples=40)
@given(seeds)
def test_the_working_grid_covers_the_fixed_field_of_view_in_multiples_of_16(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed, moving = random_geometry(rng, 6, 30), random_geometry(rng, 6, 30)
    spacing = float(rng.uniform(0.5, 3))
    grid = working_geometry(fixed, moving, np.eye(4), spacing, 10**7)
    assert all(n % 16 == 0 for n in grid.size)
    assert grid.direction == fixed.direction
    assert covers(grid, fixed)


@examples(max_examples=40)
@given(seeds)
def test_the_working_grid_has_the_voxels_it_may_have(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed, moving = random_geometry(rng, 20, 200), random_geometry(rng, 20, 400)
    for budget in (10**4, 10**6):
        grid = working_geometry(fixed, moving, np.eye(4), 0.5, budget)
        assert math.prod(grid.size) <= 1.5 * budget
        assert covers(grid, fixed)


def test_without_a_shortage_the_spacing_is_the_wanted_one_and_edges_meet() -> None:
    fixed = ImageGeometry((32, 48, 16), (1.0, 1.0, 2.0), (5.0, -7.0, 11.0))
    grid = working_geometry(fixed, fixed, np.eye(4), 2.0, 10**7)
    assert grid.spacing == (2.0, 2.0, 2.0)
    assert grid.size == (16, 32, 16)  # 16, 24 and 16 cells of 2 mm
    np.testing.assert_allclose(
        grid.corners()[0], fixed.corners()[0] - (0, 8, 0)
    )  # 8 more cells, 4 on each side


def test_an_open_spacing_is_two_thirds_of_the_finest() -> None:
    fixed = ImageGeometry((24, 24, 24), (3.0, 1.5, 4.0))
    assert working_geometry(fixed, fixed, np.eye(4), 0.0, 10**7).spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("spacing", "kept"), [(1.95, True), (2.05, True), (1.7, False), (2.3, False)])
def test_a_fixed_scan_close_to_the_wanted_spacing_keeps_its_own_voxels(spacing: float, kept: bool) -> None:
    fixed = ImageGeometry((19, 23, 30), (2.0, 1.98, 2.02), (1.0, 2.0, 3.0))
    grid = working_geometry(fixed, fixed, np.eye(4), spacing, 10**7)
    index = grid.to_index(fixed.to_lps([(0, 0, 0), (18, 22, 29)]))
    assert (grid.spacing == fixed.spacing) is kept
    assert bool(np.allclose(index, index.round(), atol=1e-6)) is kept


def test_the_moving_field_of_view_extends_the_grid_by_at_most_8_voxels() -> None:
    fixed = ImageGeometry((32, 32, 32))
    near = ImageGeometry((32, 32, 32), origin=(10.0, 0.0, 0.0))
    far = ImageGeometry((2000, 32, 32), origin=(-900.0, 0.0, 0.0))
    assert working_geometry(fixed, fixed, np.eye(4), 1.0, 10**7).size == (32, 32, 32)
    reached = working_geometry(fixed, near, np.eye(4), 1.0, 10**7)
    assert reached.size == (48, 32, 32)
    assert covers(reached, replace(near, origin=(8.0, 0.0, 0.0)))
    limited = working_geometry(fixed, far, np.eye(4), 1.0, 10**7)
    assert limited.size == (32 + 2 * 8, 32, 32)
    assert working_geometry(fixed, far, np.eye(4), 1.0, 10**7, 64).size == (32 + 2 * 64, 32, 32)
    assert not covers(limited, far)


def test_the_moving_field_of_view_is_seen_through_the_start() -> None:
    fixed = ImageGeometry((32, 32, 32))
    moving = replace(fixed, origin=(500.0, 0.0, 0.0))
    start = AffineTransform.translation((500.0, 0.0, 8.0))  # fixed -> moving: the moving scan lies 8 mm below
    grid = working_geometry(fixed, moving, start.matrix, 1.0, 10**7)
    assert grid.size == (32, 32, 48)
    np.testing.assert_allclose(grid.origin, (0, 0, -12))  # grown evenly to a multiple of 16


def test_the_grids_of_the_global_stage_are_coarse_and_share_their_voxels() -> None:
    fixed = ImageGeometry((180, 180, 180), (2.0, 2.0, 2.0))
    moving = replace(fixed, origin=(0.0, 0.0, 205.0))
    grids = coarse_grids(fixed, moving, np.eye(4), load_preset("abdomen-ct"))
    for grid, scan in zip(grids, (fixed, moving), strict=True):
        np.testing.assert_allclose(grid.spacing, 10.0)  # 360 mm are 36 voxels
        assert covers(grid, scan)
    between = grids[0].to_index(np.asarray(grids[1].origin))
    np.testing.assert_allclose(between, np.rint(between), atol=1e-6)


def test_the_grids_of_the_global_stage_are_at_least_twice_as_coarse_as_the_working_grid() -> None:
    small = ImageGeometry((40, 40, 40), (2.0, 2.0, 2.0))
    preset = load_preset("abdomen-ct")  # 2 mm
    assert coarse_grids(small, small, np.eye(4), preset)[0].spacing == (4.0, 4.0, 4.0)
