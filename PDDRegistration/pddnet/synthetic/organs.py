"""The nine labelled organs, and the stomach and duodenum they lean against."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pddnet.synthetic.body import Trunk
from pddnet.synthetic.habitus import Habitus
from pddnet.synthetic.implicit import (
    Points,
    Solid,
    Vector,
    difference,
    ellipsoid,
    half_space,
    intersection,
    rotation,
    smooth_max,
    tube,
)
from pddnet.synthetic.texture import Texture

ORGAN_NAMES = {
    1: "liver",
    2: "spleen",
    3: "pancreas",
    4: "gallbladder",
    5: "urinary bladder",
    6: "right kidney",
    7: "left kidney",
    8: "right psoas",
    9: "left psoas",
}
LIVER, SPLEEN, PANCREAS, GALLBLADDER, BLADDER, RIGHT_KIDNEY, LEFT_KIDNEY, RIGHT_PSOAS, LEFT_PSOAS = (
    ORGAN_NAMES
)


@dataclass(frozen=True)
class Kidney:
    """A kidney, and its sinus: the hollow that fat and vessels enter by."""

    body: Solid
    sinus: Solid


@dataclass(frozen=True)
class Organs:
    """The solids of one patient's abdominal organs, already fitted to each other."""

    liver: Solid
    spleen: Solid
    pancreas: Solid
    gallbladder: Solid
    bladder: Solid
    right_kidney: Kidney
    left_kidney: Kidney
    right_psoas: Solid
    left_psoas: Solid
    stomach: Solid
    duodenum: Solid


def build_organs(habitus: Habitus, trunk: Trunk, texture: Texture) -> Organs:
    """All organs of a patient; `texture` makes their surfaces uneven."""
    right, left = _right_kidney(habitus), _left_kidney(habitus)
    gut = stomach(habitus)
    gall = gallbladder(habitus)
    return Organs(
        liver=liver(habitus, trunk, right.body, gall, texture),
        spleen=spleen(habitus, trunk, left.body, gut, texture),
        pancreas=_uneven(pancreas(habitus), texture, 1.6, 9.0),
        gallbladder=gall,
        bladder=_uneven(bladder(habitus), texture, 1.5, 25.0),
        right_kidney=right,
        left_kidney=left,
        right_psoas=_uneven(psoas(habitus, -1.0), texture, 1.5, 20.0),
        left_psoas=_uneven(psoas(habitus, 1.0), texture, 1.5, 20.0),
        stomach=_uneven(gut, texture, 3.0, 18.0),
        duodenum=_uneven(duodenum(habitus), texture, 2.0, 10.0),
    )


def liver(h: Habitus, trunk: Trunk, kidney: Solid, gall: Solid, texture: Texture) -> Solid:
    """What the cavity, the diaphragm, the visceral surface and the left edge leave, minus what dents it."""
    size = h.liver_size
    left_edge = half_space((17.0 + h.liver_reach + 80 * (size - 1), 0.0, 120.0), (0.84, 0.5, -0.2))
    visceral = half_space((-55.0, -50.0, 76.0 - h.liver_tip - 160 * (size - 1)), (0.42, 0.1, -0.88))
    walls = intersection(trunk.cavity.grown(-2.0), trunk.diaphragm.grown(-2.5), blend=4.0)
    free = _uneven(intersection(left_edge, visceral, blend=14.0), texture, 2.5, 30.0)
    room = intersection(walls, free, blend=14.0)
    spine = tube([(2.0, 30.0, 30.0, 36.0), (2.0, 40.0, 120.0, 36.0), (2.0, 48.0, 220.0, 40.0)])
    carved = difference(room, spine, kidney.grown(5.0), gall.grown(-3.0), blend=8.0)
    return Solid(carved.distance, (-140.0, -115.0, 10.0), (110.0, 110.0, 215.0))


def spleen(h: Habitus, trunk: Trunk, kidney: Solid, gut: Solid, texture: Texture) -> Solid:
    """A tilted ellipsoid, flattened by the ribs on the outside and hollowed by stomach and kidney within."""
    size = h.spleen_size
    centre = (96.0, 44.0 + h.spleen_back, 130.0 + h.spleen_up)
    lump = ellipsoid(centre, (37.0 * size, 64.0 * size, 56.0 * size), rotation(28.0, 0.0, 22.0))
    carved = difference(_uneven(lump, texture, 2.0, 25.0), gut.grown(-5.0), kidney.grown(4.0), blend=10.0)
    return intersection(carved, trunk.cavity.grown(-2.0), trunk.diaphragm.grown(-3.0), blend=5.0)


def pancreas(h: Habitus) -> Solid:
    """Head in the loop of the duodenum, neck and body across the spine, tail towards the spleen."""
    up, slope = h.pancreas_up, h.pancreas_slope
    path = [
        (-27.0, -12.0, 46.0 + up, 12.0),
        (-27.0, -17.0, 66.0 + up, 15.5),
        (-6.0, -31.0, 84.0 + up, 11.0),
        (22.0, -30.0, 92.0 + up + slope / 2, 12.0),
        (52.0, -8.0, 102.0 + up + slope, 12.5),
        (80.0, 18.0, 113.0 + up + 1.5 * slope, 10.5),
    ]
    return tube(path, h.pancreas_size)


def gallbladder(h: Habitus) -> Solid:
    """A pear under the liver, its neck towards the porta, its fundus towards the belly wall."""
    x, z = h.gallbladder_left, h.gallbladder_up
    path = [
        (-40.0 + x, -22.0, 92.0 + z, 4.5),
        (-50.0 + x, -40.0, 80.0 + z, 10.0),
        (-58.0 + x, -58.0, 67.0 + z, 15.0),
        (-60.0 + x, -66.0, 61.0 + z, 14.0),
    ]
    return tube(path, h.gallbladder_size)


def bladder(h: Habitus) -> Solid:
    """Behind the pubis, flattened on top."""
    size, height = h.bladder_size, h.bladder_size * h.bladder_height_size
    centre = (h.bladder_left, -18.0, -152.0 + 30 * height)
    lump = ellipsoid(centre, (43.0 * size, 36.0 * size, 33.0 * height), rotation(-12.0, 0.0, 0.0))
    roof = half_space((0.0, -18.0, centre[2] + 26 * height), (0.0, -0.25, 1.0))
    return intersection(lump, roof, blend=10.0)


def _right_kidney(h: Habitus) -> Kidney:
    return _kidney((-66.0, 38.0, 66.0 + h.right_kidney_up), -1.0, h.right_kidney_size, h.right_kidney_turn)


def _left_kidney(h: Habitus) -> Kidney:
    return _kidney((66.0, 38.0, 80.0 + h.left_kidney_up), 1.0, h.left_kidney_size, h.left_kidney_turn)


def _kidney(centre: Vector, side: float, size: float, turn: float) -> Kidney:
    """A bean: an ellipsoid bent around its sinus, which faces forwards and inwards."""
    axes = rotation(-9.0, side * -12.0, side * (32.0 + turn))
    bend = 0.0045

    def local(points: Points) -> Points:
        offset = [p - c for p, c in zip(points, centre, strict=True)]
        x, y, z = (offset[0] * axes[0][a] + offset[1] * axes[1][a] + offset[2] * axes[2][a] for a in range(3))
        return x * side + bend * (z.square() - 500), y, z  # x outwards, the poles bend inwards

    lump = ellipsoid((0.0, 0.0, 0.0), (28.0 * size, 25.0 * size, 56.0 * size))
    hollow = ellipsoid((-20.0 * size, 0.0, 0.0), (17.0 * size, 7.5 * size, 24.0 * size))
    reach = 66.0 * size
    low = (centre[0] - reach, centre[1] - reach, centre[2] - reach)
    high = (centre[0] + reach, centre[1] + reach, centre[2] + reach)
    sinus = Solid(lambda p: hollow.distance(local(p)), low, high)
    body = Solid(lambda p: smooth_max(lump.distance(q := local(p)), -hollow.distance(q), 5.0), low, high)
    return Kidney(body, sinus)


def psoas(h: Habitus, side: float) -> Solid:
    """From beside T12 along the lumbar spine and over the pelvic brim to the hip."""
    path = [
        (side * 25.0, 36.0, 104.0, 6.0),
        (side * 33.0, 30.0, 62.0, 13.5),
        (side * 42.0, 20.0, 16.0, 19.0),
        (side * 49.0, 11.0, -28.0, 20.5),
        (side * 60.0, -8.0, -76.0, 18.5),
        (side * 74.0, -34.0, -124.0, 15.5),
        (side * 88.0, -30.0, -162.0, 12.0),
    ]
    return tube(path, h.psoas_size)


def stomach(h: Habitus) -> Solid:
    """Fundus under the left dome, body along the front, antrum across the middle to the pylorus."""
    up = h.stomach_up
    path = [
        (58.0, 18.0, 158.0, 25.0),
        (72.0, -6.0, 142.0 + up / 2, 33.0),
        (74.0, -42.0, 108.0 + up, 33.0),
        (44.0, -64.0, 78.0 + up, 26.0),
        (6.0, -58.0, 76.0 + up, 18.0),
        (-22.0, -42.0, 84.0 + h.pancreas_up, 11.0),
    ]
    return tube(path, h.stomach_size)


def duodenum(h: Habitus) -> Solid:
    """Round the head of the pancreas and back across the spine."""
    up = h.pancreas_up
    path = [
        (-22.0, -42.0, 84.0 + up, 11.0),
        (-44.0, -24.0, 80.0 + up, 13.0),
        (-52.0, -8.0, 56.0 + up, 12.5),
        (-42.0, -4.0, 32.0 + up, 12.0),
        (-8.0, -14.0, 26.0 + up, 11.0),
        (28.0, -16.0, 40.0 + up, 12.0),
    ]
    return tube(path)


def _uneven(solid: Solid, texture: Texture, amplitude: float, wavelength: float) -> Solid:
    def change(distance: torch.Tensor, points: Points) -> torch.Tensor:
        return distance + amplitude * texture(points, wavelength)

    return solid.changed(change, amplitude * 2)
