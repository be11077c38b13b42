"""Spine, ribs, sternum, pelvis and femora."""

from __future__ import annotations

import torch

from pddnet.synthetic.body import Trunk
from pddnet.synthetic.implicit import (
    Distance,
    Points,
    Profile,
    Solid,
    capsule,
    difference,
    ellipsoid,
    half_space,
    intersection,
    smooth_max,
    smooth_min,
    tube,
    union,
)

# centre (z, mm), half height, half width, half depth of the vertebral bodies, L5 up to T5; T12 is number 5
_VERTEBRAE = (
    (-50.0, 14.0, 26.0, 17.5),
    (-14.0, 14.0, 25.5, 17.5),
    (22.0, 14.0, 25.0, 17.0),
    (57.0, 13.5, 24.0, 16.5),
    (91.0, 13.0, 23.0, 16.0),
    (123.0, 12.5, 21.5, 15.5),
    (152.0, 11.5, 19.5, 15.5),
    (179.0, 11.0, 18.0, 15.0),
    (205.0, 10.5, 17.0, 15.0),
    (230.0, 10.0, 16.0, 14.5),
    (254.0, 10.0, 15.5, 14.0),
    (277.0, 9.5, 15.0, 14.0),
    (300.0, 9.5, 15.0, 13.5),
)
_T12 = 5
_LUMBAR = _VERTEBRAE[4][0] + 17  # lumbar vertebrae lie below this height
_SPINE_Y = Profile(
    (-70.0, -50.0, -14.0, 22.0, 57.0, 91.0, 123.0, 152.0, 205.0, 260.0),
    (36.0, 27.0, 20.0, 19.0, 22.0, 27.0, 34.0, 41.0, 50.0, 52.0),
)
# how far round the trunk (0 at the spine, pi at the sternum) the ribs T12, T11, ... are bone
_RIB_ENDS = (0.95, 1.45, 2.0, 2.15, 2.3, 2.4, 2.45, 2.5)

_SACRUM = (
    (0.0, 36.0, -76.0, 17.0),
    (0.0, 52.0, -96.0, 14.0),
    (0.0, 66.0, -120.0, 11.0),
    (0.0, 68.0, -146.0, 8.0),
    (0.0, 58.0, -164.0, 5.0),
)
_HIP = (84.0, -2.0, -135.0)
_JOINT = (89.0, -2.0, -137.0)
_ILIAC_CREST = (
    (116.0, -46.0, -62.0),
    (124.0, -34.0, -48.0),
    (128.0, -20.0, -38.0),
    (128.0, -4.0, -31.0),
    (123.0, 14.0, -27.0),
    (114.0, 32.0, -27.0),
    (101.0, 50.0, -31.0),
    (84.0, 65.0, -40.0),
    (66.0, 76.0, -52.0),
    (58.0, 74.0, -70.0),
)


class Spine:
    """Vertebrae in a row; everything is symmetric, so solids are built on |x|."""

    low, high = (-62.0, -12.0, -68.0), (62.0, 125.0, 310.0)

    def __init__(self) -> None:
        table = torch.tensor(_VERTEBRAE)
        self._centres, self._heights, self._widths, self._depths = table.T.contiguous()
        self._between = (self._centres[1:] + self._centres[:-1]) / 2
        self.column = self._solid(self._column)
        self.bodies = self._solid(self._bodies)
        self.arches = self._solid(self._arches)
        self.canal = self._solid(self._canal)

    def _solid(self, distance: Distance) -> Solid:
        return Solid(distance, self.low, self.high)

    def _local(self, points: Points) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """|x|, y from the body's centre, z from the nearest vertebra's middle, and which vertebra."""
        x, y, z = points
        index = torch.bucketize(z.contiguous(), self._between)
        return x.abs(), y - _SPINE_Y(z), z - self._centres[index], index

    def _column(self, points: Points) -> torch.Tensor:
        """Bodies and discs together."""
        x, y, z, index = self._local(points)
        # bodies are narrower in the middle
        waist = 2.0 * (1 - (z / self._heights[index]).square()).clamp(min=0)
        u, v = x / (self._widths[index] - waist), y / (self._depths[index] - waist)
        gauge = (u.square() + v.square() + 0.15 * u.square() * v.square()).sqrt()
        around = (gauge - 1) * self._depths[index] * 1.15
        return smooth_max(around, -66.0 - points[2], 2.0)

    def _bodies(self, points: Points) -> torch.Tensor:
        index = torch.bucketize(points[2].contiguous(), self._between)
        endplate = (points[2] - self._centres[index]).abs() - self._heights[index]
        return smooth_max(self._column(points), endplate, 3.0)

    def _canal(self, points: Points) -> torch.Tensor:
        x, y, _, index = self._local(points)
        return torch.hypot(x * 0.8, y - self._depths[index] - 7.0) - 7.0

    def _arches(self, points: Points) -> torch.Tensor:
        """Pedicles, laminae, facets, transverse and spinous processes."""
        x, y, z, index = self._local(points)
        depth = self._depths[index]
        back = y - depth
        lumbar = points[2] < _LUMBAR
        around_canal = torch.hypot(x * 0.85, back - 7.0) - 12.0
        ring = smooth_max(around_canal, (z - 1.0).abs() - 0.75 * self._heights[index], 3.0)
        facets = ellipsoid((16.0, 14.0, -15.0), (6.0, 6.0, 10.0)).distance((x, back, z))
        wing = torch.where(lumbar, back - 4, back - 4 - 0.35 * x)  # thoracic ones point backwards
        transverse = capsule((10.0, 6.0, 2.0), (33.0, 8.0, 5.0), 5.5, 4.0).distance((x, wing, z))
        sag = torch.where(lumbar, z * 0.55, z + 0.5 * (back - 18).clamp(min=0))
        spinous = capsule((0.0, 18.0, -1.0), (0.0, 40.0, -4.0), 3.6, 4.4).distance((x, back, sag))
        processes = smooth_min(transverse, spinous, 3.0)
        return smooth_min(smooth_min(ring, facets, 3.0), processes, 3.0)


def ribs(trunk: Trunk) -> tuple[Solid, Solid]:
    """The bony ribs T12 to T5, and the cartilage that goes on from them."""
    roots = torch.tensor([row[0] for row in _VERTEBRAE[_T12:]])
    ends = torch.tensor(_RIB_ENDS)

    def place(points: Points) -> tuple[torch.Tensor, torch.Tensor]:
        x, y, z = points
        angle = torch.atan2(x.abs(), y - 2.0)  # 0 at the back
        drop = 95 * (1 - torch.cos(0.62 * angle.clamp(max=2.35))) - 60 * (angle - 2.35).clamp(min=0)
        at_root = z + drop - 4
        index = torch.bucketize(at_root, (roots[1:] + roots[:-1]) / 2)
        upright = (at_root - roots[index]) * 0.85
        section = torch.hypot(trunk.rib_cage(points) * 1.3, upright * 0.9) - 5.0
        return section, (angle - ends[index]) * 110

    def bone(points: Points) -> torch.Tensor:
        section, beyond = place(points)
        return smooth_max(section, beyond, 3.0)

    def cartilage(points: Points) -> torch.Tensor:
        section, beyond = place(points)
        return torch.maximum(section, torch.where(points[2] > 85, -beyond, 10.0))

    low, high = (-170.0, -125.0, 55.0), (170.0, 135.0, 320.0)
    return Solid(bone, low, high), Solid(cartilage, low, high)


def sternum() -> Solid:
    """The breastbone down to the xiphoid."""
    return ellipsoid((0.0, -93.0, 235.0), (17.0, 6.0, 60.0))


def sacrum() -> Solid:
    """Sacrum and its wings, down to the coccyx (take the absolute value of x)."""
    body = tube(_SACRUM, steps=3)
    wing = union(
        capsule((14.0, 44.0, -80.0), (42.0, 56.0, -86.0), 13.0, 10.0),
        capsule((12.0, 58.0, -104.0), (34.0, 66.0, -106.0), 11.0, 7.0),
        capsule((8.0, 66.0, -124.0), (20.0, 68.0, -124.0), 8.0, 6.0),
        blend=10.0,
    )
    return union(body, wing, blend=8.0)


def hip_bone() -> Solid:
    """Iliac wing, socket, pubis and ischium of the left side (take the absolute value of x)."""
    fan = [capsule((_HIP[0] + 2, _HIP[1] + 8, _HIP[2] + 22), crest, 6.5, 4.5) for crest in _ILIAC_CREST]
    arms = [
        tube([(*crest, 5.0) for crest in _ILIAC_CREST], steps=2),
        capsule((72.0, -16.0, -130.0), (16.0, -48.0, -162.0), 8.5, 8.0),
        capsule((16.0, -48.0, -160.0), (14.0, -44.0, -176.0), 8.0, 6.5),
        capsule((14.0, -42.0, -178.0), (52.0, 14.0, -204.0), 5.5, 8.0),
        capsule((80.0, 18.0, -140.0), (56.0, 26.0, -204.0), 12.0, 12.0),
    ]
    joint = ellipsoid(_JOINT, (26.0, 26.0, 26.0))
    inner_half = half_space((_HIP[0] + 14, 0.0, 0.0), (1.0, 0.3, -0.2))
    socket = intersection(ellipsoid(_HIP, (31.0, 31.0, 31.0)), inner_half, blend=4.0)
    return difference(union(*fan, *arms, socket, blend=9.0), joint)


def femur() -> Solid:
    """Head, neck, trochanter and shaft of the left side (take the absolute value of x)."""
    return union(
        ellipsoid(_JOINT, (23.0, 23.0, 23.0)),
        capsule(_JOINT, (124.0, 12.0, -160.0), 14.0, 15.0),
        capsule((124.0, 12.0, -150.0), (120.0, 8.0, -300.0), 17.0, 14.0),
        blend=8.0,
    )


def symphysis() -> Solid:
    """Cartilage between the pubic bones."""
    return ellipsoid((0.0, -47.0, -167.0), (11.0, 8.0, 15.0))


def mirrored(solid: Solid) -> Solid:
    """The left half of a solid and its mirror image on the right."""
    high = solid.high
    return Solid(lambda p: solid.distance((p[0].abs(), p[1], p[2])), (-high[0], *solid.low[1:]), high)
