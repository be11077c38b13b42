"""Paints solids, one over the other, into a CT and a label map."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pddnet.synthetic.implicit import Points, Solid

AIR = -1000.0
Tissue = float | Callable[[Points, torch.Tensor], torch.Tensor]
Box = tuple[slice, slice, slice]


class Canvas:
    """A block of voxels that shares its anatomical coordinates with everything painted on it.

    Args:
        points: (x, y, z), each (D, H, W): the place in the anatomy of each voxel, mm.
        softness_mm: width of the ramp at a surface, about a voxel, for the partial volume effect.
    """

    def __init__(self, points: Points, softness_mm: float) -> None:
        self.points = points
        self.hu = torch.full_like(points[0], AIR)
        self.labels = torch.zeros(points[0].shape, dtype=torch.int32)
        self.softness = softness_mm
        self._lows = [self._extremes(axis, torch.amin) for axis in range(3)]
        self._highs = [self._extremes(axis, torch.amax) for axis in range(3)]

    def paint(self, solid: Solid, tissue: Tissue, label: int | None = 0) -> None:
        """Cover what lies in the solid.

        Args:
            solid: the region.
            tissue: its Hounsfield units: one number, or a function of the points and their distances.
            label: what the label map says there from now on; None leaves it as it is.
        """
        box = self._box(solid)
        if box is not None:
            points = self._at(box)
            self.cover(box, self._distance(solid, box), tissue, points, label)

    def cover(
        self, box: Box, distance: torch.Tensor, tissue: Tissue, points: Points, label: int | None = 0
    ) -> None:
        """As `paint`, with the distance from the surface already known in a box of voxels."""
        share = (0.5 - distance / self.softness).clamp_(0, 1)
        old = self.hu[box]
        self.hu[box] = old + share * (_colour(tissue, points, distance, share) - old)
        if label is not None:
            self.labels[box] = torch.where(distance < 0, label, self.labels[box])

    @property
    def whole(self) -> Box:
        """The box of all voxels."""
        return slice(None), slice(None), slice(None)

    def _distance(self, solid: Solid, box: Box) -> torch.Tensor:
        if not solid.parts:
            return solid.distance(self._at(box))
        distance = torch.full_like(self.points[0][box], 1e3)
        for part in solid.parts:
            inner = self._box(part)
            if inner is not None:
                here = tuple(_relative(i, b) for i, b in zip(inner, box, strict=True))
                distance[here] = torch.minimum(distance[here], part.distance(self._at(inner)))
        return distance

    def _at(self, box: Box) -> Points:
        x, y, z = self.points
        return x[box], y[box], z[box]

    def _box(self, solid: Solid) -> Box | None:
        """The voxels that can lie in the solid's box, or None."""
        slices = []
        for axis in range(3):  # x, y, z live on array dimensions 2, 1, 0
            reach = self.softness
            hit = (self._highs[axis] >= solid.low[axis] - reach) & (
                self._lows[axis] <= solid.high[axis] + reach
            )
            where = hit.nonzero()
            if not len(where):
                return None
            slices.append(slice(int(where[0]), int(where[-1]) + 1))
        return slices[2], slices[1], slices[0]

    def _extremes(self, axis: int, extreme: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Smallest or largest coordinate `axis` on each plane across the matching array dimension."""
        dimension = 2 - axis
        return extreme(self.points[axis], dim=[d for d in range(3) if d != dimension])


def _colour(
    tissue: Tissue, points: Points, distance: torch.Tensor, share: torch.Tensor
) -> float | torch.Tensor:
    """Hounsfield units, worked out only where the tissue shows."""
    if not callable(tissue):
        return tissue
    shows = share.flatten().nonzero().squeeze(1)
    x, y, z = (p.flatten()[shows] for p in points)
    colour = torch.zeros(share.numel())
    colour[shows] = tissue((x, y, z), distance.flatten()[shows])
    return colour.view(share.shape)


def _relative(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
