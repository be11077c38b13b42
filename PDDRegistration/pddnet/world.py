"""Scans whose frames are not the world's: what leads where, and displacements from world to world.

A scan may lie under transforms that no matrix can say. It is registered in its own frame, and the result is carried
over to the world, where other programs apply it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from pddnet.geometry import Frame, ImageGeometry
from pddnet.metrics import determinants, jacobian_determinant
from pddnet.points import slabs
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, chained

_SAMPLES_ALONG_AN_AXIS = 17


@dataclass(frozen=True)
class WorldFrames:
    """Where two scans' frames are not the world's: the transforms of points, both ways; None where they are."""

    fixed_to_world: SpatialTransform | None = None
    world_to_fixed: SpatialTransform | None = None
    moving_to_world: SpatialTransform | None = None
    world_to_moving: SpatialTransform | None = None

    def start(self, initial: SpatialTransform | None) -> SpatialTransform | None:
        """Point of the fixed scan's frame -> point of the moving scan's, by an initial transform in the world."""
        return sequence(self.fixed_to_world, initial, self.world_to_moving)

    def between_centres(self, fixed: ImageGeometry, moving: ImageGeometry) -> AffineTransform:
        """The shift in the world that puts the fields of view onto each other."""
        here, there = _at_centre(fixed, self.fixed_to_world), _at_centre(moving, self.moving_to_world)
        return AffineTransform.translation(there - here)

    def displacement(self, found: DisplacementField, fixed: ImageGeometry) -> DisplacementField:
        """World point -> world point, of a field from the fixed scan's frame to the moving scan's.

        It lies on the field's own lattice; under a fixed scan's transform, on a box in the world of the same spacing.
        """
        if self.fixed_to_world is None and self.moving_to_world is None:
            return replace(found, fixed_geometry=fixed).covering_fixed()
        through = sequence(self.world_to_fixed, found, self.moving_to_world)
        assert through is not None  # `found` is there
        if self.fixed_to_world is None:
            lattice = found.geometry.spanning(*found.geometry.index_range(fixed.corners()))
            return DisplacementField.sampled(through, lattice, fixed)
        box = box_in_world(fixed, self.fixed_to_world, min(found.geometry.spacing))
        return DisplacementField.sampled(through, box)

    def moving_grid(self, moving: ImageGeometry) -> ImageGeometry:
        """The moving scan's grid, or a box in the world around where its transform puts it."""
        if self.moving_to_world is None:
            return moving
        return box_in_world(moving, self.moving_to_world, min(moving.spacing))

    def jacobian(self, displacement: DisplacementField, fixed: ImageGeometry) -> Volume:
        """Determinant of the world's transform at the voxels of the fixed scan."""
        if self.fixed_to_world is None:
            return jacobian_determinant(displacement, fixed)
        steps = torch.as_tensor(
            fixed.matrix(Frame.INDEX, Frame.LPS)[:3, :3].T.copy()
        )  # row a: one voxel along a
        out = torch.empty(fixed.shape)
        for rows, points in slabs(fixed):
            out[rows] = _determinant_at(displacement, self.fixed_to_world.apply(points), steps)
        return Volume(out, fixed)


def sequence(*transforms: SpatialTransform | None) -> SpatialTransform | None:
    """Those that are there, the first one first; None where none is."""
    result: SpatialTransform | None = None
    for transform in transforms:
        if transform is not None:
            result = transform if result is None else chained(result, transform)
    return result


def box_in_world(scan: ImageGeometry, to_world: SpatialTransform, spacing_mm: float) -> ImageGeometry:
    """A grid along the axes of LPS around where a transform puts a scan's field of view, and one voxel more."""
    points = to_world.apply(torch.as_tensor(scan.samples(_SAMPLES_ALONG_AN_AXIS))).numpy()
    low, high = points.min(0) - spacing_mm, points.max(0) + spacing_mm
    size = np.ceil((high - low) / spacing_mm).astype(int) + 1
    return ImageGeometry(
        (int(size[0]), int(size[1]), int(size[2])), (spacing_mm,) * 3, (low[0], low[1], low[2])
    )


def _at_centre(scan: ImageGeometry, to_world: SpatialTransform | None) -> np.ndarray:
    if to_world is None:
        return scan.centre
    centre: np.ndarray = to_world.apply(torch.as_tensor(scan.centre)[None])[0].numpy()
    return centre


def _determinant_at(field: DisplacementField, points: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """det(I + grad u) at points (..., 3) by central differences along three steps (3, 3), mm LPS."""
    slopes = [(field.at(points + step) - field.at(points - step)) / 2 for step in steps]
    by_step = torch.stack(slopes, -1)  # (..., 3 components, 3 steps)
    gradient = by_step @ torch.linalg.inv(steps.T)
    return determinants(torch.eye(3, dtype=torch.float64) + gradient).float()
