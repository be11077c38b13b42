"""The published pdd-net on the working grid: levels in the image cube, learned features, instance optimisation."""

from __future__ import annotations

from dataclasses import replace

import torch

from pddnet.checkpoint import load_network
from pddnet.config import CubeLevel, Preset
from pddnet.errors import InputError
from pddnet.instance_optimisation import STEADY_FIT, InstanceOptimisation
from pddnet.lattice import Lattice, interpolate
from pddnet.level_scan import FIELD_STEP
from pddnet.network import Level, LevelSummary, PddNet, infer_with_warps
from pddnet.preprocessing import WorkingScan
from pddnet.progress import Reporter


def network_of(preset: Preset, device: torch.device) -> PddNet | None:
    """The network a preset's levels need, in eval mode; None for presets without such levels.

    Raises:
        InputError: the preset names no weights, or differing numbers of iterations.
        CheckpointError: the weights cannot be had or read.
    """
    if not preset.cube_levels:
        return None
    if not preset.weights:
        raise InputError(
            f"preset '{preset.name}' has levels of the network but names no weights; add weights = ..."
        )
    if len({level.instance_iterations for level in preset.cube_levels}) != 1:
        raise InputError(
            f"preset '{preset.name}' has levels with different instance_iterations; use one number"
        )
    network = load_network(preset.weights)
    if not network.regularisation.mean_field:
        raise InputError(
            f"preset '{preset.name}' names weights that were trained without the mean field; a preset's levels "
            "need it: use them through pddnet.learning"
        )
    return network.to(device)


def run_published_levels(
    network: PddNet, fixed: WorkingScan, moving: WorkingScan, preset: Preset, reporter: Reporter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward field (3, D, H, W) and spread (2, D, H, W) on the half-resolution lattice, in working voxels."""
    steps = preset.cube_levels[0].instance_iterations
    voxels = (fixed.image.shape[1], fixed.image.shape[2], fixed.image.shape[3])
    with reporter.stage("levels", f"{len(preset.levels)} levels of the network"):
        found = infer_with_warps(
            network,
            fixed.image[None],
            moving.image[None],
            [_search(level) for level in preset.cube_levels],
            optimisation=_fit(steps) if steps else None,
            on_stage=lambda message: reporter.tell("levels", message),
            between_chunks=reporter.tick,
        )
    half = Lattice.of_cells(voxels, FIELD_STEP)
    to_voxels = _half_extent(voxels, found.displacement)
    forward = interpolate(found.displacement[0] * to_voxels, Lattice(voxels, 1, 0.0), half)
    spreads = [_spread(summary, voxels, half) for summary in found.levels]
    return forward, torch.stack(spreads).sum(0)


def _search(level: CubeLevel) -> Level:
    points, labels = level.points_xyz, level.labels_xyz
    return Level((points[2], points[1], points[0]), (labels[2], labels[1], labels[0]), level.reach_xyz)


def _fit(steps: int) -> InstanceOptimisation:
    """The published fit, but the mean of the displacements around its last step, which rounding does not move."""
    return replace(STEADY_FIT, iterations=steps + STEADY_FIT.averaged // 2)


def _spread(summary: LevelSummary, voxels: tuple[int, int, int], half: Lattice) -> torch.Tensor:
    """Variance (working voxels squared, summed over the axes) and entropy of one level: (2, D, H, W)."""
    variance = summary.variance.permute(3, 0, 1, 2) * _half_extent(voxels, summary.variance).square()
    both = torch.stack((variance.sum(0), summary.entropy))
    return torch.nn.functional.interpolate(both[None], half.shape, mode="trilinear", align_corners=True)[0]


def _half_extent(voxels: tuple[int, int, int], like: torch.Tensor) -> torch.Tensor:
    """Voxels in one unit of the cube, channels (x, y, z): (3, 1, 1, 1)."""
    depth, height, width = voxels
    return (
        torch.tensor([width - 1, height - 1, depth - 1], dtype=like.dtype, device=like.device).view(
            3, 1, 1, 1
        )
        / 2
    )
