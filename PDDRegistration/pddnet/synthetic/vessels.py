"""The large arteries and veins: painted, but not labelled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pddnet.synthetic.habitus import Habitus
from pddnet.synthetic.implicit import Knot, Solid, tube, union

_MESENTERIC_BRANCHES = 9
_AORTIC_FORK = (3.0, -12.0, -8.0, 7.0)
_CAVAL_FORK = (-15.0, -4.0, -22.0, 8.5)
_PORTA = (-42.0, -20.0, 114.0)


@dataclass(frozen=True)
class Vessels:
    """Vessels by what fills them."""

    arteries: Solid
    cava: Solid
    veins: Solid
    portal: Solid
    hepatic: Solid
    mesenteric: Solid


def build_vessels(h: Habitus, generator: torch.Generator) -> Vessels:
    """All vessels of a patient; the generator spreads the branches in the mesentery."""
    return Vessels(
        arteries=union(_aorta(h), _arteries(h)),
        cava=_cava(),
        veins=_veins(h),
        portal=_portal(h.pancreas_up),
        hepatic=_hepatic(),
        mesenteric=_mesenteric(generator, h.pancreas_up),
    )


def _aorta(h: Habitus) -> Solid:
    path = [
        (14.0, 26.0, 270.0, 12.5),
        (14.0, 22.0, 205.0, 12.0),
        (9.0, 13.0, 150.0, 11.0),
        (5.0, -3.0, 91.0, 10.0),
        (5.0, -11.0, 40.0, 9.0),
        (*_AORTIC_FORK[:3], 8.0),
    ]
    return tube(path, h.aorta_size)


def _arteries(h: Habitus) -> Solid:
    """Iliac, superior mesenteric, coeliac with hepatic, and renal arteries."""
    up, left, right = h.pancreas_up, h.left_kidney_up, h.right_kidney_up
    iliac = [
        _AORTIC_FORK,
        (20.0, -8.0, -40.0, 6.5),
        (40.0, -12.0, -76.0, 5.5),
        (56.0, -44.0, -120.0, 5.0),
        (62.0, -62.0, -160.0, 4.5),
        (72.0, -58.0, -230.0, 4.5),
    ]
    mesenteric = [
        (5.0, -12.0, 78.0 + up / 2, 4.0),
        (4.0, -26.0, 60.0, 4.0),
        (2.0, -30.0, 20.0, 3.5),
        (-12.0, -30.0, -20.0, 2.5),
    ]
    coeliac = [
        (6.0, -4.0, 100.0, 4.0),
        (6.0, -20.0, 106.0 + up, 3.5),
        (-22.0, -30.0, 104.0 + up, 3.0),
        (-36.0, -28.0, 112.0, 2.0),
    ]
    return union(
        tube(iliac, h.aorta_size),
        tube(_flipped(iliac), h.aorta_size),
        tube(mesenteric),
        tube(coeliac),
        tube([(5.0, -6.0, 72.0, 3.0), (28.0, 8.0, 74.0 + left, 3.0), (48.0, 26.0, 78.0 + left, 3.0)]),
        tube([(5.0, -6.0, 70.0, 3.0), (-26.0, 8.0, 66.0 + right, 3.0), (-48.0, 26.0, 66.0 + right, 3.0)]),
    )


def _cava() -> Solid:
    path = [
        (*_CAVAL_FORK[:3], 10.5),
        (-18.0, -6.0, 30.0, 11.0),
        (-19.0, -6.0, 90.0, 11.5),
        (-22.0, 2.0, 140.0, 12.0),
        (-20.0, -2.0, 186.0, 12.5),
        (-8.0, -12.0, 205.0, 13.0),
    ]
    return tube(path)


def _veins(h: Habitus) -> Solid:
    """Iliac and renal veins."""
    left, right = h.left_kidney_up, h.right_kidney_up
    leg = [
        (36.0, -4.0, -84.0, 7.0),
        (50.0, -36.0, -122.0, 6.0),
        (52.0, -58.0, -160.0, 5.5),
        (62.0, -52.0, -230.0, 5.5),
    ]
    left_renal = [
        (-18.0, -8.0, 74.0, 4.5),
        (10.0, -18.0, 76.0, 4.5),
        (30.0, 0.0, 78.0 + left, 4.5),
        (47.0, 22.0, 82.0 + left, 4.5),
    ]
    return union(
        tube([_CAVAL_FORK, (8.0, 0.0, -48.0, 8.0), *leg]),
        tube([_CAVAL_FORK, (-26.0, 0.0, -50.0, 8.0), *_flipped(leg)]),
        tube(left_renal),
        tube([(-18.0, -6.0, 70.0, 4.5), (-34.0, 10.0, 68.0 + right, 4.5), (-47.0, 22.0, 68.0 + right, 4.5)]),
    )


def _portal(up: float) -> Solid:
    """Splenic and superior mesenteric vein, the portal vein and its branches in the liver."""
    fork = (-8.0, -20.0, 82.0 + up)
    splenic = [
        (*fork, 5.0),
        (20.0, -22.0, 92.0 + up, 4.5),
        (52.0, 2.0, 104.0 + up, 4.5),
        (80.0, 26.0, 116.0 + up, 4.0),
    ]
    mesenteric = [
        (*fork, 6.0),
        (-8.0, -28.0, 50.0, 5.5),
        (-12.0, -30.0, 10.0, 4.5),
        (-22.0, -30.0, -24.0, 3.0),
    ]
    return union(
        tube([(*fork, 7.0), (-26.0, -20.0, 98.0 + up / 2, 7.0), (*_PORTA, 7.0)]),
        tube([(*_PORTA, 6.0), (-68.0, -6.0, 122.0, 5.0), (-98.0, 8.0, 126.0, 2.5)]),
        tube([(*_PORTA, 5.5), (-20.0, -42.0, 132.0, 4.5), (14.0, -62.0, 140.0, 2.5)]),
        tube([(-68.0, -6.0, 122.0, 4.5), (-92.0, -34.0, 108.0, 3.5), (-104.0, -50.0, 90.0, 2.0)]),
        tube(splenic),
        tube(mesenteric),
    )


def _hepatic() -> Solid:
    root = (-20.0, -2.0, 178.0, 5.5)
    return union(
        tube([root, (-58.0, 6.0, 164.0, 4.0), (-92.0, 16.0, 142.0, 2.0)]),
        tube([root, (-48.0, -34.0, 160.0, 4.0), (-66.0, -58.0, 126.0, 2.0)]),
        tube([root, (0.0, -34.0, 168.0, 3.5), (22.0, -58.0, 156.0, 2.0)]),
    )


def _mesenteric(generator: torch.Generator, up: float) -> Solid:
    """Thin branches that fan out from the root of the mesentery to the bowel."""
    wander = (torch.rand((_MESENTERIC_BRANCHES, 3), generator=generator) - 0.5).tolist()
    branches = []
    for index, (x, y, z) in enumerate(wander):
        angle = math.pi * (0.15 + 0.7 * index / (_MESENTERIC_BRANCHES - 1))
        end_x, end_z = 85 * math.cos(angle) + 20 * x, 10 - 90 * math.sin(angle) + 20 * z
        middle = (end_x * 0.45, -40 + 12 * y, 20 + (end_z - 20) * 0.4, 1.8)
        branches.append(tube([(-4.0, -30.0, 40.0 + up / 2, 2.2), middle, (end_x, -48 + 30 * y, end_z, 1.3)]))
    return union(*branches)


def _flipped(path: list[Knot]) -> list[Knot]:
    return [(-x, y, z, radius) for x, y, z, radius in path]
