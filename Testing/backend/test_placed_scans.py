"""Coarse scans: cropped, halved, seen through affine transforms, compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pddnet.geometry import Frame, ImageGeometry
from pddnet.placed_scans import PlacedScan, ScanPair, features_of
from pddnet.preprocessing import WorkingScan

TURNED = ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, -1.0))


def blobs(seed: int, shape: tuple[int, int, int] = (12, 16, 20)) -> torch.Tensor:
    """Smooth noise, 0 to 1, (1, D, H, W)."""
    noise = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool3d(F.pad(noise, (2,) * 6, mode="replicate"), 5, 1)[0]
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def placed(image: torch.Tensor, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> PlacedScan:
    """All of it known and body, 3 mm, oblique."""
    ones, (depth, height, width) = torch.ones_like(image), image.shape[1:]
    grid = ImageGeometry((width, height, depth), (3.0,) * 3, origin, TURNED)
    return PlacedScan(WorkingScan(image, ones, ones.clone()), grid)


def affine() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3] += 0.1 * np.random.default_rng(3).standard_normal((3, 4))
    matrix[:3, 3] = (4.0, -2.0, 5.0)
    return matrix


def test_what_is_seen_through_a_transform_is_what_lies_at_its_points() -> None:
    scan, grid = (
        placed(blobs(1), (5.0, 3.0, -2.0)),
        ImageGeometry((6, 5, 4), (3.0,) * 3, (10.0, 20.0, -20.0), TURNED),
    )
    seen = scan.through(affine(), grid)
    inside = 0
    for k, j, i in np.ndindex(4, 5, 6):
        point = (affine() @ np.append(grid.to_lps((i, j, k)), 1))[:3]
        x, y, z = scan.grid.to_index(point)
        known = all(-0.5 <= at <= n - 0.5 for at, n in zip((x, y, z), scan.grid.size, strict=True))
        assert bool(seen.known[0, k, j, i]) == known
        if not all(1 <= at <= n - 2 for at, n in zip((x, y, z), scan.grid.size, strict=True)):
            continue
        low, expected = np.floor((x, y, z)).astype(int), 0.0
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod([1 - abs(at - n - c) for at, n, c in zip((x, y, z), low, corner, strict=True)])
            cx, cy, cz = low + corner
            expected += weight * float(scan.scan.image[0, cz, cy, cx])
        assert float(seen.image[0, k, j, i]) == pytest.approx(expected, abs=1e-5)
        inside += 1
    assert 20 < inside < 120


def test_the_crop_holds_the_body_in_multiples_of_4_and_keeps_every_voxel_in_its_place() -> None:
    image = blobs(2, (20, 18, 30))
    body = torch.zeros_like(image)
    body[:, 9:12, 5:13, 11:12] = 1
    whole = placed(image)
    scan = PlacedScan(WorkingScan(image, torch.ones_like(image), body), whole.grid)
    part = scan.around_body()
    assert part.scan.image.shape == (1, 8, 12, 8)  # 3, 8 and 1 voxels, 2 of air on each side
    assert part.scan.body.sum() == body.sum()
    corner = scan.grid.to_index(np.asarray(part.grid.origin))
    np.testing.assert_allclose(corner, (9, 3, 7), atol=1e-9)
    assert torch.equal(part.scan.image[:, :7, :12, :5], image[:, 7:14, 3:15, 9:14])
    assert part.scan.known.sum() == 7 * 12 * 5  # what was added is not known
    np.testing.assert_allclose(part.body_centre, scan.body_centre, atol=1e-9)
    assert placed(image).around_body().scan.image.shape == (1, 20, 20, 32)


def test_the_centre_of_the_body_is_in_mm() -> None:
    image = blobs(2)
    body = torch.zeros_like(image)
    body[0, 3, 4, 5] = body[0, 3, 4, 7] = 1
    scan = PlacedScan(WorkingScan(image, torch.ones_like(image), body), placed(image).grid)
    np.testing.assert_allclose(scan.body_centre, scan.grid.to_lps((6, 4, 3)))
    blank = PlacedScan(WorkingScan(image, image, torch.zeros_like(image)), scan.grid)
    np.testing.assert_allclose(blank.body_centre, scan.grid.centre)


def test_halving_averages_what_is_known_and_nothing_else() -> None:
    image = blobs(4, (4, 4, 4))
    known = torch.ones_like(image)
    known[0, 0, 0, :2] = 0
    half = PlacedScan(WorkingScan(image, known, known), placed(image).grid).halved()
    block, there = image[0, :2, :2, :2], known[0, :2, :2, :2] > 0
    assert float(half.scan.image[0, 0, 0, 0]) == pytest.approx(float(block[there].mean()), abs=1e-6)
    assert float(half.scan.image[0, 1, 1, 1]) == pytest.approx(float(image[0, 2:, 2:, 2:].mean()), abs=1e-6)
    np.testing.assert_allclose(half.grid.origin, placed(image).grid.to_lps((0.5, 0.5, 0.5)))
    assert half.grid.spacing == (6.0, 6.0, 6.0)


def test_a_scan_is_like_itself_and_unlike_a_stranger() -> None:
    scan = placed(blobs(5))
    assert ScanPair(scan, scan).compare(np.eye(4)).dissimilarity == pytest.approx(0, abs=1e-6)
    stranger = ScanPair(scan, placed(blobs(6))).compare(np.eye(4)).dissimilarity
    assert 0.8 < stranger < 1.2


def test_the_dissimilarity_is_the_mean_over_both_bodies_and_what_is_unseen_counts_as_strangers() -> None:
    fixed, moving = placed(blobs(5)), placed(blobs(6))
    fixed.scan.body[:, :, :6] = 0
    moving.scan.body[:, 2:] = 0
    moving.scan.known[..., 12:] = 0
    moving.scan.body[..., 12:] = 0
    pair = ScanPair(fixed, moving)
    apart = (features_of(fixed.scan.image) - features_of(moving.scan.image)).square().sum(0) / pair.strangers
    total, count = 0.0, 0
    for k, j, i in np.ndindex(*apart.shape):
        if fixed.scan.body[0, k, j, i]:
            total, count = total + (float(apart[k, j, i]) if i < 12 else 1.0), count + 1
        elif moving.scan.body[0, k, j, i]:
            total, count = total + float(apart[k, j, i]), count + 1
    assert pair.compare(np.eye(4)).dissimilarity == pytest.approx(total / count, rel=1e-4)


def test_less_overlap_does_not_pay() -> None:
    pair = ScanPair(placed(blobs(5)), placed(blobs(5)))
    found = []
    for cells in (0, 5, 10, 30):
        shift = np.eye(4)
        shift[:3, 3] = pair.fixed.grid.matrix(Frame.INDEX, Frame.LPS)[:3, 0] * cells
        found.append(pair.compare(shift).dissimilarity)
    assert found[0] < 1e-6
    assert found[-1] == 1.0
    assert min(found[1:]) > 0.8
