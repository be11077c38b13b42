"""From fields on the working grid to what a registration returns: mm, LPS, on a lattice that covers the fixed scan."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.geometry import Frame, ImageGeometry, Matrix
from pddnet.index_map import IndexMap
from pddnet.level_scan import FIELD_STEP
from pddnet.points import plane_slabs, slabs, transform_vectors_torch
from pddnet.uncertainty import Uncertainty
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform


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
    vectors = torch.empty((*lattice.shape, 3))
    for rows, found in _whole_displacements(values, lattice, grid.matrix(Frame.INDEX, Frame.LPS), start):
        vectors[rows] = found
    return DisplacementField(vectors, lattice, fixed)


def uncertainty_in_mm(spread: torch.Tensor, grid: ImageGeometry, fixed: ImageGeometry) -> Uncertainty:
    """The uncertainty from variance (working voxels squared) and entropy (nats), (2, D, H, W)."""
    lattice, (variance, entropy) = _covering(spread.cpu(), grid, fixed)
    return Uncertainty(
        Volume(variance.sqrt() * float(np.mean(grid.spacing)), lattice), Volume(entropy, lattice)
    )


def _whole_displacements(
    values: torch.Tensor, lattice: ImageGeometry, to_mm: Matrix, start: SpatialTransform
) -> Iterator[tuple[slice, torch.Tensor]]:
    """start(x + d(x)) - x, (d, H, W, 3) in mm, at some planes of a lattice, from d (3, D, H, W) in voxels."""
    if isinstance(start, AffineTransform):  # (A - 1) x + A d
        from_index = lattice.matrix(Frame.INDEX, Frame.LPS)
        moved = IndexMap(start.matrix @ from_index - from_index, lattice.shape)
        for rows in plane_slabs(lattice.shape):
            found = transform_vectors_torch(start.matrix @ to_mm, values[:, rows].movedim(0, -1))
            yield rows, found.add_(moved.index(rows).movedim(0, -1))
        return
    for rows, points in slabs(lattice):
        found = transform_vectors_torch(to_mm, values[:, rows].movedim(0, -1).double())
        yield rows, (start.apply(points + found) - points).float()


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
