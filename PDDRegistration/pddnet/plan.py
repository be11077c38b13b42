"""What a registration will need before it starts: its grid, the cost of its stages, its memory."""

from __future__ import annotations

import torch

from pddnet.config import CubeLevel, LatticeLevel, Preset
from pddnet.errors import InputError, InsufficientMemoryError
from pddnet.estimate import estimate_peak_memory_mb
from pddnet.geometry import ImageGeometry
from pddnet.global_alignment import robust_affine
from pddnet.grids import centred_box, working_geometry
from pddnet.memory import available_memory_mb
from pddnet.warp import AffineTransform, SpatialTransform

_MEGABYTE = 1e6


def working_grid(
    fixed: ImageGeometry, moving: ImageGeometry, start: SpatialTransform, preset: Preset
) -> ImageGeometry:
    """The grid the levels run on; see `working_geometry`.

    Its axes are the fixed scan's; for the network's levels, in the order and direction its weights were trained on; or
    it is the box that the preset names.
    """
    if preset.grid_size:
        return centred_box(fixed, preset.grid_size, preset.spacing_mm)
    grid = working_geometry(
        fixed, moving, as_affine(start, fixed).matrix, preset.spacing_mm, preset.max_voxels
    )
    return grid.reordered_to_ras() if preset.cube_levels else grid


def stage_costs(preset: Preset) -> dict[str, float]:
    """Relative cost of each stage, for a progress bar."""
    costs = {"global": 0.0 if preset.global_stage == "off" else 2.0, "prepare": 2.0}
    if preset.cube_levels:
        costs["levels"] = sum(map(_level_cost, preset.levels))
    for number, level in enumerate(preset.lattice_levels, 1):
        costs[f"level {number}"] = _level_cost(level)
    if preset.refinement_iterations:
        costs["refine"] = 0.3 * preset.refinement_iterations / preset.refinement_stride**3
    return {**costs, "finish": 1.0}


def check_memory(
    fixed: ImageGeometry, moving: ImageGeometry, preset: Preset, device: torch.device, limit_mb: float | None
) -> None:
    """Refuse a registration that will not fit.

    Raises:
        InsufficientMemoryError: the estimate is above `limit_mb`, or above what the device has free.
    """
    needed = estimate_peak_memory_mb(fixed, moving, preset)
    if device.type == "cuda" and limit_mb is None:
        free = torch.cuda.mem_get_info(device)[0] / _MEGABYTE
    else:
        free = available_memory_mb() if limit_mb is None else limit_mb
    if limit_mb is not None and not limit_mb > 0:
        raise InputError(f"the memory limit is {limit_mb} MB; a positive number is needed")
    if needed > free:
        room = f"{free:.0f} MB are free" if limit_mb is None else f"the limit given is {free:.0f} MB"
        raise InsufficientMemoryError(
            f"this registration needs about {needed:.0f} MB of memory on {device} and {room}; close "
            "other programs, crop the scans to the region of interest, or use a preset with a coarser working grid"
        )


def _level_cost(level: LatticeLevel | CubeLevel) -> float:
    """In units of about a second for 8 million working voxels on two cores."""
    if isinstance(level, CubeLevel):
        return level.entries * 6e-7
    labels = (2 * level.reach // level.step + 1) ** 3
    entries = labels / level.spacing**3
    return (0.6 + entries * 0.15 + {"coarse": 0.1, "fine": 0.6, "full": 2.5}[level.features]) * (
        2 if level.symmetric else 1
    )


def as_affine(transform: SpatialTransform, fixed: ImageGeometry) -> AffineTransform:
    """The affine transform that comes nearest to `transform` over the fixed field of view."""
    if isinstance(transform, AffineTransform):
        return transform
    corners = torch.as_tensor(fixed.corners())
    points = torch.cat((corners, corners.mean(0) + 0.5 * (corners - corners.mean(0))))
    matrix = robust_affine(points, transform.apply(points))
    if matrix is None:
        raise InputError("the initial transform cannot be followed over the fixed scan; check its file")
    return AffineTransform(matrix)
