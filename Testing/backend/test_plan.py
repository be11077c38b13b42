"""What a registration will need, told before it starts."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.awkward import random_field
from pddnet.config import CubeLevel, Preset, available_presets, load_preset
from pddnet.errors import InputError, InsufficientMemoryError
from pddnet.geometry import ImageGeometry
from pddnet.grids import working_geometry
from pddnet.plan import check_memory, estimate_peak_memory_mb, stage_costs, working_grid
from pddnet.warp import AffineTransform, DisplacementField

CPU = torch.device("cpu")


def cube(edge: int, spacing: float = 2.0) -> ImageGeometry:
    return ImageGeometry((edge,) * 3, (spacing,) * 3)


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


def test_a_start_that_is_no_matrix_is_followed_by_the_matrix_nearest_to_it() -> None:
    fixed, moving = cube(32), replace(cube(32), origin=(40.0, -20.0, 60.0))
    preset = Preset("", "", load_preset("fast").levels)
    shift = AffineTransform.translation((40.0, -20.0, 60.0))
    field = random_field(np.random.default_rng(0), fixed, 0.5)
    wobbly = DisplacementField(field.vectors + torch.tensor([40.0, -20.0, 60.0]), fixed)
    found = working_grid(fixed, moving, wobbly, preset)
    expected = working_geometry(fixed, moving, shift.matrix, preset.spacing_mm, preset.max_voxels)
    assert np.abs(np.subtract(found.size, expected.size)).max() <= 16
    assert found != working_geometry(fixed, moving, np.eye(4), 2.0, preset.max_voxels)


@pytest.mark.parametrize("limit", [-5.0, 0.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match="memory limit"):
        check_memory(cube(32), cube(32), load_preset("fast"), CPU, limit)


def test_a_preset_of_trained_levels_works_on_the_box_it_names() -> None:
    preset = Preset("mine", "", (CubeLevel(4, 3, 0.3),), spacing_mm=3.0, grid_size=(20, 16, 24))
    fixed = random_field(np.random.default_rng(3), cube(12)).geometry
    grid = working_grid(fixed, cube(90), AffineTransform.identity(), preset)
    assert grid.size == (20, 16, 24)
    np.testing.assert_allclose(grid.centre, fixed.centre)
    np.testing.assert_allclose(grid.to_lps((1, 1, 1)) - grid.to_lps((0, 0, 0)), (-3.0, -3.0, 3.0))
    larger = replace(preset, grid_size=(200, 160, 240))
    assert estimate_peak_memory_mb(fixed, fixed, larger) > 10 * (
        estimate_peak_memory_mb(fixed, fixed, preset) - 350
    )
