"""How much memory a registration will take."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pddnet.config import available_presets, load_preset
from pddnet.errors import InputError
from pddnet.estimate import estimate_peak_memory_mb
from pddnet.geometry import ImageGeometry
from pddnet.grids import working_geometry


def cube(edge: int, spacing: float = 2.0) -> ImageGeometry:
    return ImageGeometry((edge,) * 3, (spacing,) * 3)


@pytest.mark.parametrize("name", available_presets())
def test_more_voxels_need_more_memory(name: str) -> None:
    small, middle, large = (estimate_peak_memory_mb(cube(n), cube(n), name) for n in (64, 128, 192))
    assert 350 < small < middle < large
    assert estimate_peak_memory_mb(cube(64), cube(192), name) > small


def test_the_estimate_holds_the_largest_volume_of_costs_more_than_twice() -> None:
    preset = load_preset("abdomen-ct")
    grid = working_geometry(cube(192), cube(192), np.eye(4), preset.spacing_mm, preset.max_voxels)
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


def test_fewer_levels_need_no_more_memory_and_the_first_alone_less() -> None:
    count = len(load_preset("abdomen-ct").levels)
    needed = [estimate_peak_memory_mb(cube(160), cube(160), "abdomen-ct", levels=n) for n in (1, 4, count)]
    assert needed == sorted(needed)
    assert needed[0] < needed[2] == estimate_peak_memory_mb(cube(160), cube(160), "abdomen-ct")
    with pytest.raises(InputError, match=f"choose 1 to {count}"):
        estimate_peak_memory_mb(cube(160), cube(160), "abdomen-ct", levels=count + 1)


WITHOUT_TORCH = """
import json, sys
from pddnet import config, errors, geometry, progress
from pddnet.estimate import estimate_peak_memory_mb
grid = geometry.ImageGeometry((64, 48, 40), (2.0, 2.0, 3.0))
needed = [estimate_peak_memory_mb(grid, grid, name) for name in config.available_presets()]
print(json.dumps([needed, list(sys.modules)]))
"""


def test_the_estimate_needs_neither_torch_nor_simpleitk(root: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], env=environment, check=True, capture_output=True, timeout=60
    )
    needed, modules = json.loads(said.stdout)
    assert len(needed) == len(available_presets())
    assert min(needed) > 350
    assert {"torch", "SimpleITK"}.isdisjoint(modules)
