"""The search of all shifts: the best is the one a direct search finds; known shifts and turns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backend.test_affine_descent import miss_mm, turn
from backend.test_placed_scans import TURNED, blobs
from pddnet.geometry import Frame, ImageGeometry
from pddnet.placed_scans import PlacedScan, ScanPair, features_of
from pddnet.preprocessing import WorkingScan
from pddnet.shift_search import ShiftSearch


def pair_of(fixed: torch.Tensor, moving: torch.Tensor, moving_origin: tuple[float, float, float]) -> ScanPair:
    scans = []
    for image, origin in ((fixed, (0.0, 0.0, 0.0)), (moving, moving_origin)):
        ones, (depth, height, width) = torch.ones_like(image), image.shape[1:]
        scans.append(
            PlacedScan(
                WorkingScan(image, ones, ones),
                ImageGeometry((width, height, depth), (3.0,) * 3, origin, TURNED),
            )
        )
    return ScanPair(scans[0], scans[1])


def test_a_part_is_found_in_the_whole_wherever_its_header_puts_it() -> None:
    whole = blobs(8, (28, 24, 32))
    part = whole[:, 8:20, 4:16, 12:28].contiguous()
    pair = pair_of(part, whole, (70.0, -200.0, 40.0))
    truth = np.eye(4)
    grid = pair.moving.grid
    truth[:3, 3] = grid.to_lps((12, 4, 8)) - np.asarray(pair.fixed.grid.origin)
    found = ShiftSearch(pair).best(np.eye(3), 2)
    assert miss_mm(found[0], truth, pair) < 6  # one cell
    assert miss_mm(found[1], truth, pair) > 9  # neighbours are passed over
    reverse = ScanPair(pair.moving, pair.fixed)
    assert miss_mm(ShiftSearch(reverse).best(np.eye(3), 1)[0], np.linalg.inv(truth), reverse) < 6


def test_after_the_right_turn_the_shift_is_found_and_after_a_wrong_one_it_is_not() -> None:
    whole = blobs(9, (32, 32, 32))
    pair = pair_of(whole, whole, (0.0, 0.0, 0.0))
    truth = np.eye(4)
    truth[:3, :3] = turn(20)
    truth[:3, 3] = pair.moving.grid.centre - truth[:3, :3] @ pair.moving.grid.centre + (6.0, -9.0, 6.0)
    inner = pair.moving.grid.cropped((8, 8, 8), (16, 16, 16))
    pair = ScanPair(PlacedScan(pair.moving.through(truth, inner), inner), pair.moving)
    assert miss_mm(ShiftSearch(pair).best(turn(20), 1)[0], truth, pair) < 8
    assert miss_mm(ShiftSearch(pair).best(turn(-20), 1)[0], truth, pair) > 20


def test_the_best_shift_is_that_of_a_direct_search() -> None:
    pair = pair_of(blobs(10, (8, 12, 8)), blobs(11, (12, 8, 16)), (0.0, 0.0, 0.0))
    search = ShiftSearch(pair)
    fixed, moving = (
        F.avg_pool3d(features_of(s.scan.image)[None], 2)[0].double() for s in (pair.fixed, pair.moving)
    )
    losses = {}
    for shift in itertools.product(
        range(-3, 6), range(-5, 4), range(-3, 8)
    ):  # (z, y, x): moving = fixed + shift
        total = 0.0
        for at in np.ndindex(*fixed.shape[1:]):
            there = tuple(a + s for a, s in zip(at, shift, strict=True))
            if all(0 <= t < n for t, n in zip(there, moving.shape[1:], strict=True)):
                apart = fixed[(slice(None), *at)] - moving[(slice(None), *there)]
                total += float(apart.square().sum()) - pair.strangers
        losses[shift] = total
    best = min(losses, key=losses.__getitem__)
    # the bodies' centres go onto each other first, so that the cells of the two scans fall together
    move = pair.fixed.grid.matrix(Frame.LPS, Frame.INDEX) @ search.best(np.eye(3), 1)[0]
    move = move @ pair.fixed.grid.matrix(Frame.INDEX, Frame.LPS)
    np.testing.assert_allclose(move[:3, 3], 2 * np.asarray(best[::-1]), atol=1e-6)


@pytest.mark.parametrize("least", [1, 7, 11, 13, 14, 17, 97])
def test_lengths_for_the_transforms_have_small_factors(least: int) -> None:
    from pddnet.shift_search import _fast_length

    length = _fast_length(least)
    assert length >= least
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    assert length == 1
