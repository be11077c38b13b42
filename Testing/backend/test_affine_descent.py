"""The descent: known transforms are found, nothing gets worse, and stretching has its price."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.test_placed_scans import TURNED, blobs
from pddnet.affine_descent import Freedom, descend, stretch_price
from pddnet.geometry import ImageGeometry
from pddnet.placed_scans import PlacedScan, ScanPair
from pddnet.preprocessing import WorkingScan


def nothing() -> None:
    pass


def pair_moved_by(truth: np.ndarray) -> ScanPair:
    """A moving scan of blobs, and a fixed one that is the same seen through `truth`."""
    image = blobs(7, (40, 40, 40))
    ones = torch.ones_like(image)
    grid = ImageGeometry((40, 40, 40), (3.0,) * 3, (5.0, 2.0, -9.0), TURNED)
    moving = PlacedScan(WorkingScan(image, ones, ones), grid)
    inner = grid.cropped((10, 10, 10), (20, 20, 20))
    return ScanPair(PlacedScan(moving.through(truth, inner), inner), moving)


def transform(linear: np.ndarray, shift: tuple[float, float, float], centre: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, centre - linear @ centre + shift
    return matrix


def turn(degrees: float, axis: tuple[float, float, float] = (0.36, 0.48, 0.8)) -> np.ndarray:
    cross = np.cross(np.eye(3), -np.asarray(axis))
    return np.eye(3) + np.sin(np.deg2rad(degrees)) * cross + (1 - np.cos(np.deg2rad(degrees))) * cross @ cross


CENTRE = pair_moved_by(np.eye(4)).fixed.grid.centre
CASES: list[tuple[Freedom, np.ndarray]] = [
    ("translation", transform(np.eye(3), (2.0, -3.0, 1.5), CENTRE)),
    ("rigid", transform(turn(8), (2.0, -1.0, 1.5), CENTRE)),
    ("affine", transform(turn(4) @ np.diag((1.08, 0.95, 1.0)), (1.0, -2.0, 1.5), CENTRE)),
]


def miss_mm(found: np.ndarray, truth: np.ndarray, pair: ScanPair) -> float:
    points = np.append(pair.fixed.grid.corners(), np.ones((8, 1)), 1)
    return float(np.linalg.norm(points @ (found - truth).T, axis=1).max())


@pytest.mark.parametrize(("freedom", "truth"), CASES)
def test_a_known_transform_is_found(freedom: Freedom, truth: np.ndarray) -> None:
    pair = pair_moved_by(truth)
    assert miss_mm(np.eye(4), truth, pair) > 3
    found = descend(pair, np.eye(4), freedom, 12, nothing)
    assert miss_mm(found.transform, truth, pair) < 0.6  # a fifth of a voxel, at the corners
    assert found.price < 0.05 + stretch_price(truth)


def test_less_freedom_finds_less_and_keeps_its_word() -> None:
    pair = pair_moved_by(CASES[2][1])
    rigid = descend(pair, np.eye(4), "rigid", 12, nothing).transform[:3, :3]
    np.testing.assert_allclose(rigid @ rigid.T, np.eye(3), atol=1e-9)
    shift = descend(pair, np.eye(4), "translation", 12, nothing).transform[:3, :3]
    np.testing.assert_allclose(shift, np.eye(3), atol=1e-9)


def test_a_descent_never_ends_higher_than_it_began() -> None:
    truth = transform(turn(5), (2.0, -1.0, 1.5), CENTRE)
    pair = pair_moved_by(truth)
    for start in (truth, np.eye(4), transform(turn(90), (30.0, 0.0, 0.0), CENTRE)):
        before = pair.compare(start).dissimilarity + stretch_price(start)
        assert descend(pair, start, "affine", 5, nothing).price <= before
        assert descend(pair, start, "affine", 0, nothing).price == before


def test_stretching_has_a_price_and_turning_has_none() -> None:
    assert stretch_price(transform(turn(40), (9.0, 0.0, 0.0), CENTRE)) == pytest.approx(0, abs=1e-12)
    stretched = transform(turn(10) @ np.diag((1.2, 1.0, 1.0)) @ turn(-20), (0.0, 0.0, 0.0), CENTRE)
    assert stretch_price(stretched) == pytest.approx(0.1 * np.log(1.2) ** 2)
    assert stretch_price(np.diag((1 / 1.2, 1.0, 1.0, 1.0))) == pytest.approx(0.1 * np.log(1.2) ** 2)


def test_a_price_on_stretch_pulls_towards_rigid(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_moved_by(CASES[2][1])
    free = descend(pair, np.eye(4), "affine", 12, nothing).transform
    monkeypatch.setattr("pddnet.affine_descent._STRETCH_PRICE", 100.0)
    dear = descend(pair, np.eye(4), "affine", 12, nothing).transform
    stretches = [np.abs(np.log(np.linalg.svd(t[:3, :3], compute_uv=False))).max() for t in (free, dear)]
    assert stretches[0] > 0.05
    assert stretches[1] < 0.005


def test_the_hook_is_called_before_every_step() -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    descend(pair_moved_by(CASES[1][1]), np.eye(4), "rigid", 3, count)
    assert calls == 3
