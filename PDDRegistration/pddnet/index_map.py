"""Where the points of a regular grid lie among the voxels of a scan, without a matrix product for each of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pddnet.geometry import Matrix
from pddnet.separable import Separable


@dataclass(frozen=True)
class Shift:
    """Displacements in voxels of the scan, (3, D, H, W) as (x, y, z), and how they reach the grid."""

    values: torch.Tensor
    onto: Separable


@dataclass(frozen=True)
class IndexMap:
    """Continuous indices of a scan: `matrix` applied to the indices of a grid, plus a displacement.

    The sums along planes are float64, the results float32: right to 1e-4 of a voxel for scans of up to 800 voxels along
    each axis.

    Args:
        matrix: 4x4, from grid index to scan index, on column vectors (i, j, k, 1).
        shape: the grid's (D, H, W).
        shift: added to it.
    """

    matrix: Matrix
    shape: tuple[int, int, int]
    shift: Shift | None = None

    def index(self, rows: slice, device: torch.device | str = "cpu") -> torch.Tensor:
        """Continuous index (3, d, H, W) as (i, j, k), float32, of the points of some planes."""
        _, height, width = self.shape
        m = torch.from_numpy(self.matrix)
        k, j, i = (torch.arange(n, dtype=torch.float64) for n in (rows.stop, height, width))
        lines = m[:3, 3, None, None] + m[:3, 2, None, None] * k[rows.start :, None] + m[:3, 1, None, None] * j
        along = (m[:3, 0, None] * i).float().to(device)[:, None, None]
        out = lines.float().to(device)[..., None] + along
        return (
            out
            if self.shift is None
            else out.add_(self.shift.onto.planes(self.shift.values, rows).to(device))
        )
