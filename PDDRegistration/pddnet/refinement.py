"""Continuous refinement of a field on MIND-SSC features, after the discrete levels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pddnet.features.mind_ssc import mind_ssc
from pddnet.instance_optimisation import FeatureRefinement, refine_on_features
from pddnet.lattice import Lattice, interpolate
from pddnet.levels import FIELD_STEP
from pddnet.preprocessing import WorkingScan


def refined(
    fixed: WorkingScan,
    moving: WorkingScan,
    forward: torch.Tensor,
    iterations: int,
    stride: int,
    between_iterations: Callable[[], None],
) -> torch.Tensor:
    """The field (3, D, H, W), working voxels on the half-resolution lattice, after gradient descent on features.

    Args:
        stride: 1 or 2 working voxels between the features, and between the displacements while they are refined.
    """
    voxels = (fixed.image.shape[1], fixed.image.shape[2], fixed.image.shape[3])
    half, at = Lattice.of_cells(voxels, FIELD_STEP), Lattice.of_cells(voxels, stride)
    fixed_features, moving_features = (
        mind_ssc(scan.image[None], dilation=2, stride=stride) for scan in (fixed, moving)
    )
    cells = torch.tensor(at.shape[::-1], dtype=forward.dtype, device=forward.device)
    to_cube = 2 / ((cells - 1) * stride)  # working voxels to (-1, 1) between the first and last feature
    start = interpolate(forward, half, at).permute(1, 2, 3, 0) * to_cube
    fitted = refine_on_features(
        fixed_features,
        moving_features,
        start,
        FeatureRefinement(iterations=iterations),
        between_chunks=between_iterations,
    )
    return interpolate((fitted / to_cube).permute(3, 0, 1, 2), at, half)
