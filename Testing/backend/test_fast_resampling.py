"""Resampling by axis weights, by copies and in blocks: the same as point by point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import (
    covering_geometry,
    noise,
    overlapping_geometry,
    patches,
    random_affine_matrix,
    random_field,
    random_geometry,
    seeds,
)
from backend.oracles.pointwise import Pointwise
from pddnet import scan_sampling, warp
from pddnet.geometry import Frame, ImageGeometry
from pddnet.points import slabs, transform_points_torch
from pddnet.preprocessing import Scaling, ScanSource, WorkingScan, body_window
from pddnet.results import displacement_in_mm
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, SpatialTransform, resample

CPU = torch.device("cpu")
NOTHING = AffineTransform.identity()
SCALING = Scaling(0.1, 0.7, True, 0.9)
NEAR = 1e-3  # voxels from where a nearest voxel or the field of view changes


def moving_index(moving: ImageGeometry, fixed: ImageGeometry, transform: SpatialTransform) -> torch.Tensor:
    points = torch.cat([points for _, points in slabs(fixed)])
    return transform_points_torch(moving.matrix(Frame.LPS, Frame.INDEX), transform.apply(points))


def is_decided(index: torch.Tensor) -> torch.Tensor:
    """Whether rounding cannot change which voxel is nearest."""
    half = (index + 0.5) % 1
    return ((half > NEAR) & (half < 1 - NEAR)).all(-1)


@examples(max_examples=25)
@given(seeds)
@pytest.mark.parametrize("kind", ["field", "affine"])
def test_warping_is_that_of_each_point_and_labels_agree_to_the_voxel(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng)
    moving = overlapping_geometry(rng, fixed)
    through: SpatialTransform = (
        random_field(rng, covering_geometry(fixed))
        if kind == "field"
        else AffineTransform(random_affine_matrix(rng, fixed))
    )
    image, labels = noise(rng, moving), patches(rng, moving)
    decided = is_decided(moving_index(moving, fixed, through))
    for scan, tolerance in ((image, 5e-4), (labels, 0)):
        fast, slow = resample(scan, fixed, through), resample(scan, fixed, Pointwise(through))
        npt.assert_allclose(fast.data[decided], slow.data[decided], atol=tolerance)
        other = resample(scan, fixed, NOTHING).data
        assert bool((other[decided] != slow.data[decided]).any())


def test_no_point_is_followed_by_itself_where_the_axes_run_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("point by point")

    rng = np.random.default_rng(0)
    fixed = random_geometry(rng)
    image = noise(rng, overlapping_geometry(rng, fixed))
    field = random_field(rng, covering_geometry(fixed))
    monkeypatch.setattr(warp, "slabs", refuse)
    field.warp(image, fixed)
    resample(image, fixed, AffineTransform(random_affine_matrix(rng, fixed)))
    with pytest.raises(AssertionError, match="point by point"):
        resample(image, fixed, Pointwise(field))


# --- onto working grids


def grids_of(rng: np.random.Generator, scan: ImageGeometry) -> dict[str, ImageGeometry]:
    """Grids that see a scan in every way there is, always partly beyond it."""
    low, size = rng.integers(-3, 3, 3), rng.integers(3, 20, 3)
    same = scan.cropped([int(n) for n in low], [int(n) for n in size])
    reverse = np.asarray(same.direction) * (-1, 1, -1)
    backwards = replace(
        same,
        direction=tuple(tuple(row) for row in reverse),
        origin=tuple(same.to_lps((same.size[0] - 1, 0, same.size[2] - 1))),
    )
    along = replace(same, spacing=tuple(rng.uniform(0.6, 1.6, 3) * scan.spacing))
    across = replace(overlapping_geometry(rng, scan), spacing=along.spacing)
    return {
        "same": same,
        "backwards": backwards,
        "along": along,
        "across": across,
        "coarse": replace(same, spacing=tuple(np.asarray(scan.spacing) * (2.2, 3.1, 1.0))),
        "elsewhere": replace(same, origin=tuple(scan.to_lps((900.0, 0.0, 0.0)))),
    }


def assert_same(found: WorkingScan, expected: WorkingScan) -> None:
    npt.assert_allclose(found.image, expected.image, atol=1e-3)
    # half of a weight can round to either side
    assert int((found.known != expected.known).sum()) <= 2 + 0.02 * found.known.numel()
    for scan in (found, expected):
        bright = F.max_pool3d(scan.image[None], 3, 1, 1)[0] > SCALING.foreground
        assert torch.equal(scan.body, bright * scan.known)


@examples(max_examples=20)
@given(seeds)
@pytest.mark.parametrize("which", ["same", "backwards", "along", "across", "coarse", "elsewhere"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_working_scan_is_that_of_each_point(which: str, masked: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scan = noise(rng, random_geometry(rng))
    mask = LabelMap(torch.from_numpy(rng.integers(0, 2, scan.geometry.shape)), scan.geometry)
    source = ScanSource(scan, mask if masked else None, SCALING, CPU)
    grid = grids_of(rng, scan.geometry)[which]
    for through in (NOTHING, AffineTransform(random_affine_matrix(rng, grid, 0.03))):
        assert_same(source.on(grid, through), source.on(grid, Pointwise(through)))


def test_another_place_or_size_would_be_noticed() -> None:
    rng = np.random.default_rng(1)
    scan = noise(rng, random_geometry(rng, 10, 14))
    source = ScanSource(scan, None, SCALING, CPU)
    grid = scan.geometry.cropped((-2, 1, 0), (12, 11, 13))
    shifted = AffineTransform.translation(grid.to_lps((0.0, 1.0, 0.0)) - grid.to_lps((0.0, 0.0, 0.0)))
    with pytest.raises(AssertionError):
        assert_same(source.on(grid, NOTHING), source.on(grid, Pointwise(shifted)))


def test_on_its_own_voxels_a_scan_is_copied_and_along_its_axes_weighted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("sampled")

    rng = np.random.default_rng(2)
    scan = noise(rng, random_geometry(rng))
    source = ScanSource(scan, None, Scaling(0.0, 1.0, False, 0.5), CPU)
    monkeypatch.setattr(scan_sampling, "grid_sample", refuse)
    grids = grids_of(rng, scan.geometry)
    assert torch.equal(source.on(scan.geometry, NOTHING).image[0], scan.data)
    for which in ("same", "backwards", "along", "coarse", "elsewhere"):
        source.on(grids[which], NOTHING)
    with pytest.raises(AssertionError, match="sampled"):
        source.on(grids["across"], NOTHING)


def test_a_scan_is_averaged_once_for_all_grids_that_are_as_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    averaged, block_mean = [], scan_sampling._block_mean

    def counted(values: torch.Tensor, factors: tuple[int, ...]) -> torch.Tensor:
        averaged.append(factors)
        return block_mean(values, factors)

    monkeypatch.setattr(scan_sampling, "_block_mean", counted)
    rng = np.random.default_rng(3)
    scan = noise(rng, random_geometry(rng))
    source = ScanSource(scan, None, SCALING, CPU)
    grid = grids_of(rng, scan.geometry)["coarse"]
    for _ in range(3):
        source.on(grid, AffineTransform(random_affine_matrix(rng, grid)))
    assert averaged == [(2, 3, 1)]


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 3, 4), (4, 1, 3), (5, 5, 5)])
def test_blocks_cut_by_the_border_are_the_mean_of_what_there_is(factors: tuple[int, int, int]) -> None:
    values = torch.rand((9, 8, 7), generator=torch.Generator().manual_seed(0))
    expected = F.avg_pool3d(values[None], factors[::-1], ceil_mode=True, count_include_pad=False)[0]
    npt.assert_allclose(scan_sampling._block_mean(values, factors), expected, atol=1e-6)


def test_many_slabs_are_one_and_the_caller_is_asked_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    scan = noise(rng, random_geometry(rng))
    source = ScanSource(scan, None, SCALING, CPU)
    grids = grids_of(rng, scan.geometry)
    for which in ("same", "along", "across"):
        whole = source.on(grids[which], NOTHING)
        asked: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(
                scan_sampling, "plane_slabs", lambda shape: (slice(k, k + 1) for k in range(shape[0]))
            )
            planes = source.on(grids[which], NOTHING, lambda: asked.append(1))  # noqa: B023
        npt.assert_allclose(planes.image, whole.image, atol=1e-6)
        assert len(asked) > 2


def test_the_body_window_is_that_of_both_bodies_along_each_axis() -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        bodies = [torch.zeros(1, 64, 80, 96) for _ in range(2)]
        for body in bodies:
            z, y, x = (int(n) for n in rng.integers(0, (64, 80, 96)))
            body[0, z, y, x] = 1
        scans = [WorkingScan(body, body, body) for body in bodies]
        window = body_window((scans[0], scans[1]))
        for axis, part in enumerate(window):
            voxels = (bodies[0] + bodies[1])[0].nonzero()[:, axis]
            assert part.start <= voxels.min()
            assert voxels.max() < part.stop


def test_a_start_that_is_affine_gives_the_displacements_of_each_point() -> None:
    rng = np.random.default_rng(6)
    fixed = random_geometry(rng, 20, 30)
    grid = fixed.cropped((-3, -2, 0), (32, 16, 32))
    forward = torch.from_numpy(rng.normal(size=(3, 16, 8, 16))).float()
    start = AffineTransform(random_affine_matrix(rng, fixed))
    fast = displacement_in_mm(forward, grid, fixed, start)
    slow = displacement_in_mm(forward, grid, fixed, Pointwise(start))
    assert fast.geometry == slow.geometry
    npt.assert_allclose(fast.vectors, slow.vectors, atol=1e-4)
    inverse = displacement_in_mm(forward, grid, fixed, start.inverse())
    assert float((inverse.vectors - slow.vectors).abs().max()) > 0.1


def test_labels_beyond_what_float32_holds_survive() -> None:
    geometry = ImageGeometry((4, 4, 4))
    labels = LabelMap(torch.full(geometry.shape, 2**31 - 1), geometry)
    assert int(resample(labels, geometry, NOTHING).data.min()) == 2**31 - 1
    assert isinstance(resample(Volume(torch.rand(4, 4, 4), geometry), geometry, NOTHING), Volume)
