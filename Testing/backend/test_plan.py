"""What a registration will need, told before it starts."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.awkward import random_field
from pddnet.config import Preset, available_presets, load_preset
from pddnet.errors import InputError, InsufficientMemoryError
from pddnet.geometry import ImageGeometry
from pddnet.plan import check_memory, coarse_grid, estimate_peak_memory_mb, stage_costs, working_grid
from pddnet.preprocessing import working_geometry
from pddnet.warp import AffineTransform, DisplacementField

CPU = torch.device("cpu")


def cube(edge: int, spacing: float = 2.0) -> ImageGeometry:
    return ImageGeometry((edge,) * 3, (spacing,) * 3)


@pytest.mark.parametrize("name", available_presets())
def test_more_voxels_need_more_memory(name: str) -> None:
    small, middle, large = (estimate_peak_memory_mb(cube(n), cube(n), name) for n in (64, 128, 192))
    assert 350 < small < middle < large
    assert estimate_peak_memory_mb(cube(64), cube(192), name) > small


def test_the_estimate_holds_the_largest_volume_of_costs_more_than_twice() -> None:
    preset = load_preset("abdomen-ct")
    grid = working_grid(cube(192), cube(192), AffineTransform.identity(), preset)
    entries = [
        (2 * level.reach // level.step + 1) ** 3 * math.prod(grid.size) / level.spacing**3
        for level in preset.lattice_levels
    ]
    assert estimate_peak_memory_mb(cube(192), cube(192), preset) > 350 + 2 * max(entries) * 4 / 1e6


def test_the_budget_of_voxels_bounds_the_estimate() -> None:
    fine, coarse = load_preset("generic"), replace(load_preset("generic"), max_voxels=500_000)
    assert estimate_peak_memory_mb(cube(256, 1.0), cube(256, 1.0), coarse) < 0.6 * estimate_peak_memory_mb(
        cube(256, 1.0), cube(256, 1.0), fine
    )


def test_too_little_memory_is_refused_with_what_is_needed_and_what_is_there() -> None:
    preset = load_preset("fast")
    needed = estimate_peak_memory_mb(cube(128), cube(128), preset)
    check_memory(cube(128), cube(128), preset, CPU, needed + 1)
    message = re.escape(f"needs about {needed:.0f} MB of memory on cpu and the limit given is 100 MB")
    with pytest.raises(InsufficientMemoryError, match=message + ".*coarser working grid"):
        check_memory(cube(128), cube(128), preset, CPU, 100)
    with pytest.raises(InsufficientMemoryError):
        check_memory(cube(128), cube(128), preset, CPU, needed - 1)


def test_without_a_limit_what_the_machine_has_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pddnet.plan.available_memory_mb", lambda: 12.0)
    with pytest.raises(InsufficientMemoryError, match="12 MB are free"):
        check_memory(cube(32), cube(32), load_preset("fast"), CPU, None)
    monkeypatch.setattr("pddnet.plan.available_memory_mb", lambda: math.inf)
    check_memory(cube(32), cube(32), load_preset("fast"), CPU, None)


@pytest.mark.parametrize("name", available_presets())
def test_every_stage_has_a_cost(name: str) -> None:
    preset = load_preset(name)
    costs = stage_costs(preset)
    assert {"global", "prepare", "finish"} < set(costs)
    assert len(costs) == 3 + (len(preset.lattice_levels) or 1)  # the network runs its levels as one stage
    assert min(costs.values()) > 0
    refined = replace(preset, refinement_iterations=20)
    assert stage_costs(refined)["refine"] > 0
    assert stage_costs(replace(preset, global_stage="off"))["global"] == 0


def test_the_grid_of_the_global_stage_is_the_fixed_field_of_view_at_twice_the_spacing() -> None:
    preset = load_preset("abdomen-ct")
    grid = coarse_grid(cube(80), preset)
    assert grid.spacing == (4.0, 4.0, 4.0)
    assert grid.size == (48, 48, 48)  # 160 mm are 40 cells of 4 mm
    np.testing.assert_allclose(grid.centre, cube(80).centre)


def test_a_start_that_is_no_matrix_is_followed_by_the_matrix_nearest_to_it() -> None:
    fixed, moving = cube(32), replace(cube(32), origin=(40.0, -20.0, 60.0))
    preset = Preset("", "", load_preset("fast").levels)
    shift = AffineTransform.translation((40.0, -20.0, 60.0))
    field = random_field(np.random.default_rng(0), fixed, 0.5)
    wobbly = DisplacementField(field.vectors + torch.tensor([40.0, -20.0, 60.0]), fixed)
    found = working_grid(fixed, moving, wobbly, preset)
    expected = working_geometry(fixed, moving, shift, preset.spacing_mm, preset.max_voxels)
    assert np.abs(np.subtract(found.size, expected.size)).max() <= 16
    assert found != working_geometry(fixed, moving, AffineTransform.identity(), 2.0, preset.max_voxels)


@pytest.mark.parametrize("limit", [-5.0, 0.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match="memory limit"):
        check_memory(cube(32), cube(32), load_preset("fast"), CPU, limit)
