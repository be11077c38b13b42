"""Continuous refinement of a field on MIND-SSC features, after the discrete levels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from pddnet.features.mind_ssc import mind_ssc
from pddnet.instance_optimisation import FeatureRefinement, refine_on_features
from pddnet.lattice import Lattice, compose, interpolate, warp_on
from pddnet.level_scan import FIELD_STEP
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

    What is fitted is an update of the field, to the moving scan warped by it. Only the fixed body pulls.

    Args:
        stride: 1 or 2 working voxels between the features, and between the displacements while they are refined.
    """
    voxels = (fixed.image.shape[1], fixed.image.shape[2], fixed.image.shape[3])
    half, at = Lattice.of_cells(voxels, FIELD_STEP), Lattice.of_cells(voxels, stride)
    warped = warp_on(moving.image, Lattice(voxels, 1, 0.0), forward, half, between_iterations)
    fixed_features, moving_features = (
        mind_ssc(image[None], dilation=2, stride=stride) for image in (fixed.image, warped)
    )
    cells = torch.tensor(at.shape[::-1], dtype=forward.dtype, device=forward.device)
    to_cube = 2 / ((cells - 1) * stride)  # working voxels to (-1, 1) between the first and last feature
    update = refine_on_features(
        fixed_features,
        moving_features,
        forward.new_zeros((*at.shape, 3)),  # the fit draws borders to 0: right for an update, not for a field
        FeatureRefinement(iterations=iterations),
        weights=F.avg_pool3d(fixed.body[None], stride)[0, 0],
        between_chunks=between_iterations,
    )
    return compose(interpolate((update / to_cube).permute(3, 0, 1, 2), at, half), forward, half)
