"""Colon and small bowel: painted, but not labelled."""

from __future__ import annotations

import math

import torch

from pddnet.synthetic.habitus import Habitus
from pddnet.synthetic.implicit import Knot, Points, Solid, tube

_LOOPS = 10
_STEPS_PER_LOOP = 10


def colon(h: Habitus) -> Solid:
    """A frame around the small bowel, pinched into haustra, and the rectum."""
    up = h.transverse_colon_up
    path = [
        (-84.0, -24.0, -74.0, 26.0),  # caecum
        (-92.0, -8.0, -40.0, 24.0),
        (-94.0, 2.0, 0.0, 22.0),
        (-88.0, -16.0, 34.0, 21.0),
        (-66.0, -52.0, 34.0 + up / 2, 19.0),
        (-28.0, -74.0, 22.0 + up, 18.0),
        (20.0, -78.0, 24.0 + up, 18.0),
        (66.0, -64.0, 52.0 + up / 2, 17.0),
        (98.0, -22.0, 96.0, 17.0),  # splenic flexure
        (104.0, 8.0, 74.0, 15.0),
        (101.0, 10.0, 20.0, 14.0),
        (98.0, 4.0, -36.0, 13.0),
        (76.0, -22.0, -72.0, 13.0),
        (40.0, -26.0, -92.0, 14.0),
        (14.0, 6.0, -84.0, 14.0),
        (2.0, 36.0, -104.0, 15.0),
        (0.0, 46.0, -136.0, 17.0),  # rectum
        (0.0, 46.0, -180.0, 11.0),
    ]
    return tube(path, h.colon_size, steps=5).changed(_haustra, 2.0)


def small_bowel(h: Habitus, generator: torch.Generator) -> Solid:
    """Loops to and fro between the flanks, from the upper to the lower abdomen."""
    phases = (2 * math.pi * torch.rand(6, generator=generator)).tolist()
    count = _LOOPS * _STEPS_PER_LOOP
    return tube([_on_loop(step / count, h.bowel_left, phases) for step in range(count + 1)], steps=2)


def _on_loop(t: float, left: float, phases: list[float]) -> Knot:
    around = math.pi * _LOOPS * t
    x = left + 62 * math.sin(around + phases[0]) + 10 * math.sin(23 * t + phases[1])
    y = -42 + 24 * math.sin(2.6 * around + phases[2]) + 6 * math.sin(31 * t + phases[3])
    z = 24 - 128 * t + 16 * math.sin(3.7 * around + phases[4]) + 6 * math.sin(41 * t + phases[5])
    return x * (1 - 0.25 * t), y, z, 13.0 + 2.5 * math.sin(90 * t + phases[5])


def _haustra(distance: torch.Tensor, points: Points) -> torch.Tensor:
    x, y, z = points
    return distance + 1.6 * torch.sin((x + 0.7 * y) * 0.2) * torch.sin((z + 0.4 * y) * 0.2 + 1.0)
