"""How a registration did, segment by segment: agreement, displacement, uncertainty and folding on the fixed grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pddnet.geometry import Frame, ImageGeometry
from pddnet.metrics import bounding_box, mask_distances, target_registration_error
from pddnet.points import transform_points_torch
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform

Report = dict[str, Any]
Mask = torch.Tensor
_MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class NamedMask:
    """One segment on the fixed grid: the voxels of `value` in a layer (D, H, W)."""

    name: str
    layer: torch.Tensor
    value: int

    @property
    def key(self) -> str:
        """What names are compared by."""
        return self.name.strip().lower()

    def mask(self) -> Mask:
        """(D, H, W), bool."""
        return self.layer == self.value


@dataclass(frozen=True)
class WarpedSegment:
    """A segment of the moving scan on the fixed grid.

    Args:
        segmentation: the name of the segmentation it belongs to.
        before: as it lay without the registration; None where nothing is to be compared with it.
        after: as the registration has warped it.
        namesakes: how many segments before it in its segmentation have its name.
    """

    segmentation: str
    before: NamedMask | None
    after: NamedMask
    namesakes: int = 0


@dataclass(frozen=True)
class Judge:
    """What segments are judged by.

    Args:
        geometry: the fixed grid; distances and volumes are mm of its frame.
        displacement: world point -> world point.
        fixed_to_world: from the fixed scan's frame to the world, where they differ.
        determinant, uncertainty: on the fixed grid.
        references: segments of the fixed scan; several of one name are taken in their order.
    """

    geometry: ImageGeometry
    displacement: DisplacementField
    fixed_to_world: SpatialTransform | None
    determinant: Volume
    uncertainty: Volume
    references: Sequence[NamedMask] = ()

    def reference(self, name: str, namesakes: int = 0) -> NamedMask | None:
        """The fixed segment of that name after `namesakes` others, whatever its case and the blanks around it."""
        key = name.strip().lower()
        found = [mask for mask in self.references if key and mask.key == key]
        return found[namesakes] if namesakes < len(found) else None

    def judged(self, segments: Iterable[WarpedSegment], between: Callable[[], None]) -> list[Report]:
        """A row for each segment; what cannot be said of it is None. `between` is called between segments."""
        return list(self._rows(segments, between))

    def _rows(self, segments: Iterable[WarpedSegment], between: Callable[[], None]) -> Iterator[Report]:
        for segment in segments:
            after = segment.after.mask()
            yield {
                "segmentation": segment.segmentation,
                "name": segment.after.name,
                **self._agreement(segment, after),
                **self._inside(after),
            }
            between()

    def _agreement(self, segment: WarpedSegment, after: Mask) -> Report:
        reference = self.reference(segment.after.name, segment.namesakes)
        masks = {"before": segment.before.mask() if segment.before else None, "after": after}
        row: Report = {}
        for when, mask in masks.items():
            overlap, farthest = None, None
            if reference is not None and mask is not None:
                overlap, farthest = _compared(mask, reference.mask(), self.geometry)
            row |= {f"dice_{when}": overlap, f"hd95_{when}": farthest}
        return row

    def _inside(self, mask: Mask) -> Report:
        if not bool(mask.any()):
            return {
                "displacement_mean_mm": None,
                "displacement_max_mm": None,
                "uncertainty_mean_mm": None,
                "folding_percent": None,
                "volume_ml": 0.0,
            }
        box = bounding_box(mask)
        inside = mask[box]
        lengths = self._displacements(inside, box).norm(dim=-1)
        voxel_mm3 = abs(float(torch.linalg.det(self._to_lps()[:3, :3])))
        return {
            "displacement_mean_mm": float(lengths.mean()),
            "displacement_max_mm": float(lengths.max()),
            "uncertainty_mean_mm": float(self.uncertainty.data[box][inside].double().mean()),
            "folding_percent": 100 * float((self.determinant.data[box][inside] <= 0).double().mean()),
            "volume_ml": int(inside.sum()) * voxel_mm3 / _MM3_PER_ML,
        }

    def _displacements(self, inside: Mask, box: tuple[slice, slice, slice]) -> torch.Tensor:
        """Displacements (N, 3), mm, of the set voxels of a box of the fixed grid."""
        corner = torch.tensor([axis.start for axis in reversed(box)], dtype=torch.float64)
        index = inside.nonzero().flip(-1).double() + corner  # (N, 3), x, y, z
        points = transform_points_torch(self._to_lps().numpy(), index)
        return self.displacement.at(self.fixed_to_world.apply(points) if self.fixed_to_world else points)

    def _to_lps(self) -> torch.Tensor:
        return torch.as_tensor(self.geometry.matrix(Frame.INDEX, Frame.LPS))


def landmark_errors(
    fixed: torch.Tensor, moving: torch.Tensor, displacement: DisplacementField
) -> dict[str, list[float]]:
    """Distance in mm of each pair of landmarks (N, 3), in the world, without and with the registration."""
    stages: dict[str, SpatialTransform] = {"before": AffineTransform.identity(), "after": displacement}
    return {
        when: target_registration_error(fixed, moving, transform).tolist()
        for when, transform in stages.items()
    }


def _compared(mask: Mask, reference: Mask, geometry: ImageGeometry) -> tuple[float | None, float | None]:
    """Dice, and HD95 in mm where the grid's axes are at right angles; None where both or one are empty."""
    either = mask | reference
    if not bool(either.any()):
        return None, None
    box = bounding_box(either)
    mask, reference = mask[box], reference[box]
    overlap = 2 * float((mask & reference).sum()) / float(mask.sum() + reference.sum())
    if overlap == 0 and not (bool(mask.any()) and bool(reference.any())):
        return overlap, None
    return overlap, mask_distances(mask, reference, geometry).hd95 if geometry.has_right_angles else None
