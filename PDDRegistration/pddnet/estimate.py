"""How much memory a registration will take, from the grids alone: instant, and without PyTorch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pddnet.config import CubeLevel, LatticeLevel, Preset, load_preset, overridden
from pddnet.geometry import ImageGeometry
from pddnet.grids import working_geometry

_BASE_MB = 350.0  # Python, torch and its libraries
_MEGABYTE = 1e6
_FEATURE_CHANNELS = 13


def estimate_peak_memory_mb(
    fixed: ImageGeometry, moving: ImageGeometry, preset: str | Path | Preset, *, levels: int | None = None
) -> float:
    """Estimated peak memory of `register` in MB, the process included, before any voxel is looked at.

    An upper estimate: cropping to the body, which is not known yet, makes it less.

    Args:
        fixed, moving: the grids of the scans.
        preset: a name, a TOML file or a `Preset`.
        levels: how many of its levels will run; None for all.

    Raises:
        InputError: there is no such preset, or it has fewer levels.
    """
    chosen = overridden(load_preset(preset), levels=levels)
    grid = working_geometry(fixed, moving, np.eye(4), chosen.spacing_mm, chosen.max_voxels)
    voxels = math.prod(chosen.grid_size or grid.size)
    scans = math.prod(fixed.size) * 8 + math.prod(moving.size) * 12 + voxels * 4 * 8
    return _BASE_MB + (scans + max(_level_bytes(level, voxels) for level in chosen.levels)) / _MEGABYTE


def _level_bytes(level: LatticeLevel | CubeLevel, voxels: int) -> float:
    if isinstance(level, CubeLevel):
        return 4 * (2.6 * level.entries + 20 * voxels)
    labels = (2 * level.reach // level.step + 1) ** 3
    cost = labels / level.spacing**3
    features = _FEATURE_CHANNELS / {"coarse": 8, "fine": 8, "full": 1}[level.features]
    return 4 * voxels * (3 * cost + 6 * features + 10)
