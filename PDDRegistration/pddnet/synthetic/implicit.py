"""Solids described by a function: negative inside, close to the distance in mm near the surface.

A solid is evaluated at points given as three tensors (x, y, z) of one shape. Ellipsoids, swept tubes and
their smooth unions, cuts and differences are enough to build an abdomen, at any resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch

Vector = tuple[float, float, float]
Knot = tuple[float, float, float, float]
Points = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Distance = Callable[[Points], torch.Tensor]
Rotation = tuple[Vector, Vector, Vector]

EVERYWHERE: tuple[Vector, Vector] = ((-math.inf,) * 3, (math.inf,) * 3)
NO_ROTATION: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_TINY = 1e-6


@dataclass(frozen=True)
class Solid:
    """A region of space.

    Args:
        distance: points (x, y, z), mm -> mm, negative inside.
        low, high: corners of a box that holds the region, (x, y, z) mm.
        parts: solids whose plain union this one is, if it is one: each need only be evaluated in its own box.
    """

    distance: Distance
    low: Vector = EVERYWHERE[0]
    high: Vector = EVERYWHERE[1]
    parts: tuple[Solid, ...] = ()

    def changed(self, change: Callable[[torch.Tensor, Points], torch.Tensor], margin: float) -> Solid:
        """This solid with the distance `change(distance, points)`; it reaches at most `margin` mm further."""
        return Solid(
            lambda points: change(self.distance(points), points),
            _shift(self.low, -margin),
            _shift(self.high, margin),
            tuple(part.changed(change, margin) for part in self.parts),
        )

    def grown(self, margin: float) -> Solid:
        """This solid with its surface moved outwards by `margin` mm (inwards if negative)."""
        return self.changed(lambda distance, _: distance - margin, max(margin, 0.0))


def rotation(about_x: float, about_y: float, about_z: float) -> Rotation:
    """Rows of the rotation matrix Rz Ry Rx, angles in degrees; the transpose turns points the other way."""
    cx, cy, cz = (math.cos(math.radians(a)) for a in (about_x, about_y, about_z))
    sx, sy, sz = (math.sin(math.radians(a)) for a in (about_x, about_y, about_z))
    return (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )


def smooth_min(a: torch.Tensor, b: torch.Tensor, blend: float) -> torch.Tensor:
    """The smaller of two distances, rounded where they differ by less than `blend` mm."""
    if blend <= 0:
        return torch.minimum(a, b)
    overlap = (blend - (a - b).abs()).clamp_(min=0)
    return torch.minimum(a, b) - overlap.square_() * (0.25 / blend)


def smooth_max(a: torch.Tensor, b: torch.Tensor, blend: float) -> torch.Tensor:
    """The larger of two distances, rounded where they differ by less than `blend` mm."""
    return -smooth_min(-a, -b, blend)


def union(*solids: Solid, blend: float = 0.0) -> Solid:
    """What lies in any of the solids; `blend` mm rounds the seams."""
    low = _each(min, [solid.low for solid in solids])
    high = _each(max, [solid.high for solid in solids])
    parts = tuple(part for solid in solids for part in solid.parts or (solid,)) if blend <= 0 else ()
    return Solid(
        lambda p: reduce(lambda a, b: smooth_min(a, b, blend), (s.distance(p) for s in solids)),
        _shift(low, -blend / 4),
        _shift(high, blend / 4),
        parts,
    )


def intersection(*solids: Solid, blend: float = 0.0) -> Solid:
    """What lies in all of the solids; `blend` mm rounds the edges."""
    low = _each(max, [solid.low for solid in solids])
    high = _each(min, [solid.high for solid in solids])
    return Solid(
        lambda p: reduce(lambda a, b: smooth_max(a, b, blend), (s.distance(p) for s in solids)), low, high
    )


def difference(solid: Solid, *others: Solid, gap: float = 0.0, blend: float = 0.0) -> Solid:
    """The solid without what lies within `gap` mm of the others; `blend` mm rounds the edges."""
    return intersection(solid, *(_outside(other.grown(gap)) for other in others), blend=blend)


def half_space(point: Vector, normal: Vector) -> Solid:
    """All points behind the plane through `point`, seen along its outward `normal` (of any length)."""
    length = math.hypot(*normal)
    a, b, c = (n / length for n in normal)
    offset = a * point[0] + b * point[1] + c * point[2]
    return Solid(lambda p: p[0] * a + p[1] * b + p[2] * c - offset)


def ellipsoid(centre: Vector, radii: Vector, turned: Rotation = NO_ROTATION) -> Solid:
    """An ellipsoid; the columns of `turned` are its axes, `radii` its half lengths along them."""
    axes = tuple(zip(*turned, strict=True))
    reach = [math.hypot(*(radius * turned[i][a] for a, radius in enumerate(radii))) for i in range(3)]

    def distance(points: Points) -> torch.Tensor:
        offset = [p - c for p, c in zip(points, centre, strict=True)]
        first, second = torch.tensor(_TINY**2), torch.tensor((_TINY / min(radii)) ** 2)  # 0 / 0 at the centre
        for radius, axis in zip(radii, axes, strict=True):
            along = (offset[0] * axis[0] + offset[1] * axis[1] + offset[2] * axis[2]) / radius
            first, second = first + along.square(), second + (along / radius).square()
        gauge = first.sqrt()
        return gauge * (gauge - 1) / second.sqrt()  # first order around the surface

    return Solid(distance, _each(float.__sub__, [centre, reach]), _each(float.__add__, [centre, reach]))


def capsule(start: Vector, end: Vector, radius: float, end_radius: float | None = None) -> Solid:
    """A rounded rod from `start` to `end` whose radius changes evenly from one end to the other."""
    taper = (radius if end_radius is None else end_radius) - radius
    along = tuple(e - s for s, e in zip(start, end, strict=True))
    square = sum(a * a for a in along) + _TINY
    widest = max(radius, radius + taper)

    def distance(points: Points) -> torch.Tensor:
        x, y, z = (p - s for p, s in zip(points, start, strict=True))
        t = (x * (along[0] / square) + y * (along[1] / square) + z * (along[2] / square)).clamp_(0, 1)
        from_axis = (x - t * along[0]).square_() + (y - t * along[1]).square_() + (z - t * along[2]).square_()
        return from_axis.sqrt_() - (t * taper + radius)

    low, high = _each(min, [start, end]), _each(max, [start, end])
    return Solid(distance, _shift(low, -widest), _shift(high, widest))


def tube(path: Sequence[Knot], size: float = 1.0, steps: int = 4) -> Solid:
    """A rod swept along a smooth curve through knots (x, y, z, radius), radii times `size`, mm.

    Between two knots the curve is made of `steps` straight pieces.
    """
    curve = catmull_rom([(x, y, z, radius * size) for x, y, z, radius in path], steps)
    return union(*(capsule(a[:3], b[:3], a[3], b[3]) for a, b in pairwise(curve)))


def catmull_rom(knots: Sequence[Knot], steps: int) -> list[Knot]:
    """The knots with `steps - 1` points between neighbours, on a Catmull-Rom spline."""
    table = torch.tensor([knots[0], *knots, knots[-1]], dtype=torch.float64)
    a, b, c, d = table[:-3, None], table[1:-2, None], table[2:-1, None], table[3:, None]
    t = torch.arange(steps, dtype=torch.float64)[:, None] / steps
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return [*((x, y, z, radius) for x, y, z, radius in curve.flatten(0, 1).tolist()), knots[-1]]


class Profile:
    """A smooth function of one coordinate through given values, constant beyond them, from a fine table."""

    def __init__(self, knots: Sequence[float], values: Sequence[float], step: float = 2.0) -> None:
        if len(knots) != len(values) or any(b <= a for a, b in pairwise(knots)):
            raise ValueError(
                f"knots {list(knots)} must rise and come with as many values, got {list(values)}"
            )
        self._start, self._step = knots[0], step
        places = torch.arange(knots[0], knots[-1] + step, step, dtype=torch.float64).clamp(max=knots[-1])
        nodes = torch.tensor([knots, values], dtype=torch.float64)
        self._table = _hermite(places, nodes[0], nodes[1])
        self._rises = self._table.diff(append=self._table[-1:])

    def __call__(self, at: torch.Tensor) -> torch.Tensor:
        """Values at `at` (any shape), float32."""
        place = ((at.flatten() - self._start) / self._step).clamp_(0, len(self._table) - 1.001)
        index = place.int()
        rise = self._rises.index_select(0, index) * (place - index)
        return rise.add_(self._table.index_select(0, index)).view(at.shape)


def _hermite(at: torch.Tensor, knots: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    slopes = torch.gradient(values, spacing=(knots,))[0]
    right = torch.searchsorted(knots, at).clamp(1, len(knots) - 1)
    left, width = right - 1, knots[right] - knots[right - 1]
    t = (at - knots[left]) / width
    return (
        values[left] * (1 + 2 * t) * (1 - t) ** 2
        + values[right] * (3 - 2 * t) * t**2
        + width * (slopes[left] * t * (1 - t) ** 2 - slopes[right] * t**2 * (1 - t))
    ).float()


def _outside(solid: Solid) -> Solid:
    return Solid(lambda points: -solid.distance(points))


def _each(function: Callable[..., float], vectors: Sequence[Sequence[float]]) -> Vector:
    x, y, z = (function(*(float(vector[axis]) for vector in vectors)) for axis in range(3))
    return x, y, z


def _shift(vector: Vector, by: float) -> Vector:
    return vector[0] + by, vector[1] + by, vector[2] + by
