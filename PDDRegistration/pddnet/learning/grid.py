"""The grid that training happens on: one cube of voxels for scans of any geometry, and the way back to mm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pddnet.config import Intensity
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.grids import TO_RAS, centred_box
from pddnet.preprocessing import Scaling, check_scan, on_working_grid, resolved
from pddnet.strict_json import from_json
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, resample

_FEWEST = 8


@dataclass(frozen=True)
class TrainingGrid:
    """A box of voxels around the centre of a scan's field of view, axes to right, anterior and superior.

    Args:
        size: voxels along (x, y, z).
        spacing_mm: distance of the voxels.
        intensity: how the scans' values are scaled.
    """

    size: tuple[int, int, int]
    spacing_mm: float
    intensity: Intensity = field(default_factory=Intensity)

    def __post_init__(self) -> None:
        odd = any(n % 2 for n in self.size)  # a preset keeps displacements at half the resolution
        if odd or len(self.size) != 3 or min(self.size) < _FEWEST or not 0 < self.spacing_mm < math.inf:
            raise InputError(
                f"the training grid has size {self.size} and spacing_mm {self.spacing_mm}; "
                f"three even sizes of at least {_FEWEST} voxels and a spacing above 0 are needed"
            )

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> TrainingGrid:
        """The grid that a checkpoint names; raises InputError where it names none."""
        if not table:
            raise InputError(
                "these weights name no training grid; weights that `pddnet train` wrote are needed"
            )
        return from_json(cls, table, "the training grid")

    def as_json(self) -> dict[str, Any]:
        """What `of` reads."""
        return {**asdict(self), "size": list(self.size)}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.size[2], self.size[1], self.size[0]

    def geometry(self, scan: ImageGeometry) -> ImageGeometry:
        """Where the grid lies for a scan of this geometry."""
        return centred_box(scan, self.size, self.spacing_mm)

    def image(self, scan: Volume, role: str = "training") -> torch.Tensor:
        """The scan on the grid, scaled: (1, 1, D, H, W).

        Raises:
            InputError: the scan cannot be used; the message names its role.
        """
        check_scan(scan, role)
        scaling = Scaling.of(scan, resolved(self.intensity, scan, scan))
        grid, nowhere = self.geometry(scan.geometry), AffineTransform.identity()
        return on_working_grid(scan, None, grid, nowhere, scaling, torch.device("cpu")).image[None]

    def labels(self, labels: LabelMap) -> torch.Tensor:
        """The nearest label of each voxel of the grid, 0 outside the map: (D, H, W), int32."""
        return resample(labels, self.geometry(labels.geometry), AffineTransform.identity()).data

    def displacement(
        self, normalised: torch.Tensor, fixed: ImageGeometry, moving: ImageGeometry
    ) -> DisplacementField:
        """A displacement between the boxes of two scans in mm, LPS, fixed -> moving point.

        Args:
            normalised: (1, 3, D, H, W), channels (x, y, z), as `TrainableRegistration.displacement` gives it.
            fixed, moving: the geometries of the two scans.

        Returns:
            The vectors at the voxels of the fixed scan's box; `warp` takes them to the fixed scan's own voxels.

        Raises:
            InputError: a displacement on another grid.
        """
        if tuple(normalised.shape) != (1, 3, *self.shape):
            raise InputError(
                f"the displacement has shape {tuple(normalised.shape)}; {(1, 3, *self.shape)} is needed on this grid"
            )
        here, there = self.geometry(fixed), self.geometry(moving)
        half_extent = torch.tensor([(n - 1) / 2 * self.spacing_mm for n in self.size], dtype=torch.float64)
        along_axes = normalised[0].permute(1, 2, 3, 0).double().cpu() * half_extent  # (D, H, W, 3), mm
        vectors = along_axes @ torch.tensor(TO_RAS, dtype=torch.float64).T
        shift = torch.as_tensor(there.centre - here.centre)
        return DisplacementField(vectors + shift, here, fixed)
