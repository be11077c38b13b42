"""From fields on the working grid to what a registration returns: mm, LPS, on a lattice that covers the fixed scan."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.geometry import Frame, ImageGeometry
from pddnet.levels import FIELD_STEP
from pddnet.points import slabs, transform_vectors_torch
from pddnet.uncertainty import Uncertainty
from pddnet.volume import Volume
from pddnet.warp import DisplacementField, SpatialTransform


def displacement_in_mm(
    forward: torch.Tensor, grid: ImageGeometry, fixed: ImageGeometry, start: SpatialTransform
) -> DisplacementField:
    """The whole transform x -> start(x + d(x)) as displacements.

    Args:
        forward: d, (3, D, H, W), working voxels (x, y, z), on the half-resolution lattice of `grid`.
        grid: the working grid.
        fixed: what the result must cover.
        start: grid point -> moving point, mm LPS.
    """
    lattice, values = _covering(forward.cpu(), grid, fixed)
    in_mm = transform_vectors_torch(grid.matrix(Frame.INDEX, Frame.LPS), values.permute(1, 2, 3, 0).double())
    vectors = torch.empty((*lattice.shape, 3))
    for rows, points in slabs(lattice):
        vectors[rows] = (start.apply(points + in_mm[rows]) - points).float()
    return DisplacementField(vectors, lattice, fixed)


def uncertainty_in_mm(spread: torch.Tensor, grid: ImageGeometry, fixed: ImageGeometry) -> Uncertainty:
    """The uncertainty from variance (working voxels squared) and entropy (nats), (2, D, H, W)."""
    lattice, (variance, entropy) = _covering(spread.cpu(), grid, fixed)
    return Uncertainty(
        Volume(variance.sqrt() * float(np.mean(grid.spacing)), lattice), Volume(entropy, lattice)
    )


def _covering(
    values: torch.Tensor, grid: ImageGeometry, fixed: ImageGeometry
) -> tuple[ImageGeometry, torch.Tensor]:
    """The half-resolution lattice of `grid`, grown until it covers `fixed`, and the values (C, D, H, W) held beyond."""
    lattice = grid.coarsened((FIELD_STEP,) * 3)
    first, last = lattice.index_range(fixed.corners())
    padding = [
        n for axis in range(3) for n in (-first[axis], last[axis] - lattice.size[axis] + 1)
    ]  # x, y, z: as F.pad wants them
    return lattice.spanning(first, last), F.pad(values[None], padding, mode="replicate")[0]
