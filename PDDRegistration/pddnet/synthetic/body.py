"""The trunk: skin, fat, muscle, the cavity and the diaphragm, and the lungs and heart above it."""

from __future__ import annotations

import torch

from pddnet.synthetic.habitus import Habitus
from pddnet.synthetic.implicit import Points, Profile, Solid, ellipsoid, rotation, smooth_max, tube, union

SKIN_MM = 2.0
_PELVIC_FLOOR = -182.0

# z (mm), then half width, half depth, centre y of the cavity; and of the outside of the muscles
_CAVITY = (
    (-185.0, 42.0, 42.0, 10.0),
    (-160.0, 54.0, 56.0, 2.0),
    (-130.0, 66.0, 68.0, -6.0),
    (-100.0, 86.0, 76.0, -12.0),
    (-50.0, 108.0, 80.0, -16.0),
    (0.0, 115.0, 81.0, -14.0),
    (50.0, 122.0, 83.0, -10.0),
    (100.0, 129.0, 88.0, -4.0),
    (150.0, 133.0, 92.0, 2.0),
    (200.0, 131.0, 92.0, 2.0),
    (260.0, 122.0, 86.0, 4.0),
)
_MUSCLE = (
    (-260.0, 146.0, 86.0, 14.0),
    (-200.0, 152.0, 94.0, 10.0),
    (-150.0, 152.0, 97.0, 8.0),
    (-100.0, 148.0, 97.0, 6.0),
    (-50.0, 139.0, 95.0, 4.0),
    (0.0, 130.0, 94.0, 4.0),
    (50.0, 136.0, 96.0, 4.0),
    (100.0, 145.0, 101.0, 5.0),
    (150.0, 150.0, 106.0, 5.0),
    (200.0, 150.0, 107.0, 5.0),
    (260.0, 148.0, 104.0, 6.0),
)
_FAT_SHARE = Profile((-260.0, -130.0, -60.0, 0.0, 80.0, 160.0, 260.0), (1.0, 1.1, 1.2, 1.1, 0.85, 0.6, 0.6))


# the ridge that the spine and the muscles beside it make in the back wall: centre y and radius by height
_RIDGE_Y = Profile(
    (-160.0, -110.0, -70.0, -14.0, 22.0, 91.0, 123.0, 205.0, 260.0),
    (118.0, 108.0, 84.0, 66.0, 64.0, 72.0, 80.0, 96.0, 98.0),
)
_RIDGE_RADIUS = 44.0
_THINNEST_WALL = 9.0


class Outline:
    """A trunk-shaped surface: a rounded rectangle whose half axes and centre change along the body."""

    def __init__(
        self, rows: tuple[tuple[float, float, float, float], ...], width: float, depth: float
    ) -> None:
        z, half_width, half_depth, centre = zip(*rows, strict=True)
        self._half_width = Profile(z, [width * w for w in half_width])
        self._half_depth = Profile(z, [depth * d for d in half_depth])
        self._centre = Profile(z, centre)

    def gauge(self, points: Points) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """How far out (0 centre, 1 surface), the sideways (0 to 1) and the backward (-1 to 1) share of it."""
        x, y, z = points
        u = (x / self._half_width(z)).square()
        back = (y - self._centre(z)) / self._half_depth(z)
        v = back.square()
        ratio = (u.square() + v.square() + 1.3 * u * v).sqrt().sqrt()
        return ratio, (u / (u + v + 1e-6)), back / (u + v + 1e-6).sqrt()

    def distance(self, points: Points) -> torch.Tensor:
        """Distance from the surface along the ray from the centre, mm, negative inside."""
        x, y, z = points
        radius = torch.hypot(x, y - self._centre(z))
        ratio = self.gauge(points)[0]
        return radius * (1 - 1 / (ratio + 1e-3))


class Trunk:
    """The nested surfaces of one patient's trunk."""

    def __init__(self, habitus: Habitus) -> None:
        h = habitus
        self._cavity = Outline(_CAVITY, 1.0, 1.0)
        self._muscle = Outline(_MUSCLE, 0.93 + 0.07 * h.muscle_size, 0.93 + 0.07 * h.muscle_size)
        self._fat = h.fat
        self._dome_up = h.liver_dome_up
        self.cavity = Solid(self._cavity_distance)
        self.muscle = Solid(self._muscle.distance)
        self.diaphragm = Solid(self._above_diaphragm)
        self.above_diaphragm = Solid(lambda p: -self._above_diaphragm(p))
        self.chest = Solid(lambda p: smooth_max(self._cavity_distance(p) + 2, -self._above_diaphragm(p), 10))

    def layers(self, points: Points) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances from the skin and from the outside of the muscles, mm."""
        outside = self._muscle.distance(points)
        _, sideways, back = self._muscle.gauge(points)
        # more fat on the belly and the buttocks than on the flanks
        thickness = self._fat * _FAT_SHARE(points[2]) * (0.75 + 0.35 * (1 - sideways) + 0.15 * back)
        return outside - thickness - SKIN_MM, outside

    def _cavity_distance(self, points: Points) -> torch.Tensor:
        inside = smooth_max(self._cavity.distance(points), _PELVIC_FLOOR - points[2], 30)
        ridge = _RIDGE_RADIUS - torch.hypot(points[0] * 0.9, points[1] - _RIDGE_Y(points[2]))
        behind_the_wall = self._muscle.distance(points) + _THINNEST_WALL
        return torch.maximum(smooth_max(inside, ridge, 24), behind_the_wall)

    def rib_cage(self, points: Points) -> torch.Tensor:
        """Distance from the surface the ribs run in, mm, signed."""
        return self._cavity.distance(points) - 6.0

    def _above_diaphragm(self, points: Points) -> torch.Tensor:
        """Distance below (negative) or above the diaphragm, measured upright, mm."""
        x = points[0]
        ratio, _, back = self._cavity.gauge(points)
        edge = 135 - 42 * back
        top = 186 + self._dome_up - 7 * torch.tanh(x / 40) - 14 * torch.exp(-((x - 5) / 30).square())
        inside = (1 - ratio.clamp(max=1).pow(2.5)).clamp_(min=0)
        return (points[2] - (edge + (top - edge) * inside.sqrt())) * 0.7


def heart() -> Solid:
    """The heart with its sac, on the diaphragm left of the middle."""
    return ellipsoid((22.0, -38.0, 214.0), (62.0, 42.0, 42.0), rotation(10.0, 25.0, 35.0))


def mediastinum() -> Solid:
    """Soft tissue in front of the thoracic spine, between the lungs."""
    return tube([(2.0, 20.0, 150.0, 20.0), (4.0, 14.0, 200.0, 22.0), (4.0, 6.0, 270.0, 30.0)])


def oesophagus() -> Solid:
    """From behind the heart to the stomach."""
    return tube(
        [(8.0, 2.0, 270.0, 8.0), (12.0, 2.0, 200.0, 8.0), (22.0, -2.0, 170.0, 8.0), (42.0, 2.0, 156.0, 8.0)]
    )


def back_muscles() -> Solid:
    """The erector spinae of one side (take the absolute value of x)."""
    inner = [
        (19.0, 78.0, 270.0, 12.0),
        (19.0, 80.0, 180.0, 14.0),
        (19.0, 77.0, 90.0, 17.0),
        (19.0, 72.0, 0.0, 18.0),
        (19.0, 76.0, -70.0, 12.0),
    ]
    outer = [
        (44.0, 72.0, 270.0, 11.0),
        (44.0, 74.0, 180.0, 13.0),
        (44.0, 71.0, 90.0, 16.0),
        (44.0, 66.0, 0.0, 18.0),
        (44.0, 70.0, -70.0, 10.0),
    ]
    return union(tube(inner, steps=2), tube(outer, steps=2), blend=16.0)
