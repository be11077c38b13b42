"""From scans of any geometry to a working grid: checks, the grid, scaling, resampling, cropping."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import noise, random_geometry, seeds
from pddnet.config import Intensity
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.preprocessing import (
    Scaling,
    WorkingScan,
    body_window,
    check_mask,
    check_overlap,
    check_scan,
    on_working_grid,
    resolved,
)
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, resample

CPU = torch.device("cpu")
NOTHING = AffineTransform.identity()
AS_IT_IS = Scaling(0.0, 1.0, False, 0.5)


def volume(size: tuple[int, int, int] = (6, 5, 7), **geometry: object) -> Volume:
    grid = ImageGeometry(size, **geometry)  # type: ignore[arg-type]
    return Volume(torch.rand(grid.shape), grid)


def cut(grid: ImageGeometry, keep: float) -> ImageGeometry:
    """A grid inside another, so that points near its border have voxels all around."""
    index = (np.asarray(grid.size) - 1) * (1 - keep) / 2
    return replace(grid, origin=tuple(grid.to_lps(index)), spacing=tuple(keep * s for s in grid.spacing))


# --- checks


def test_what_is_no_volume_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"moving is a ndarray; a Volume is needed: read one with read_volume\(\)"
    ):
        check_scan(np.zeros((3, 3, 3)), "moving")  # type: ignore[arg-type]


def test_a_single_slice_is_refused() -> None:
    with pytest.raises(InputError, match=r"the fixed scan has 6 x 5 x 1 voxels; .* load the whole series"):
        check_scan(volume((6, 5, 1)), "fixed")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_voxels_that_are_no_numbers_are_refused_and_counted(value: float) -> None:
    scan = volume()
    scan.data[2, 1:3, 4] = value
    with pytest.raises(InputError, match="the fixed scan has 2 voxels that are NaN or infinite"):
        check_scan(scan, "fixed")


def test_a_constant_scan_is_refused() -> None:
    scan = volume()
    scan.data[:] = -1024
    with pytest.raises(InputError, match="the moving scan has the value -1024 everywhere"):
        check_scan(scan, "moving")


def test_an_ordinary_scan_and_mask_pass() -> None:
    scan = volume()
    check_scan(scan, "fixed")
    check_mask(None, scan, "fixed")
    check_mask(LabelMap((scan.data > 0.5).int(), scan.geometry), scan, "fixed")


def test_a_mask_on_another_grid_or_of_nothing_is_refused() -> None:
    scan = volume()
    other = volume((6, 5, 8)).geometry
    with pytest.raises(
        InputError, match="the moving mask has 6 x 5 x 8 voxels and does not lie on the moving scan"
    ):
        check_mask(LabelMap(torch.ones(other.shape), other), scan, "moving")
    shifted = replace(scan.geometry, origin=(0.5, 0.0, 0.0))
    with pytest.raises(InputError, match="does not lie on"):
        check_mask(LabelMap(torch.ones(shifted.shape), shifted), scan, "moving")
    with pytest.raises(InputError, match="the fixed mask covers nothing"):
        check_mask(LabelMap(torch.zeros(scan.geometry.shape), scan.geometry), scan, "fixed")


def test_scans_that_do_not_meet_are_refused_with_their_distance_and_meet_after_a_start() -> None:
    here, there = volume().geometry, volume(origin=(0.0, 300.0, 0.0)).geometry
    with pytest.raises(InputError, match=r"do not overlap \(their centres are 300 mm apart\)"):
        check_overlap(here, there, NOTHING)
    check_overlap(here, there, AffineTransform.translation((0, 300, 0)))
    check_overlap(here, volume(origin=(4.9, 3.9, 5.9)).geometry, NOTHING)  # a corner is enough


def test_a_small_scan_anywhere_inside_a_large_one_overlaps_it() -> None:
    large = ImageGeometry((400, 400, 400))
    for place in ((201.0, 13.0, 80.0), (188.0, 212.0, 237.0)):
        small = ImageGeometry((8, 8, 8), origin=place)
        check_overlap(large, small, NOTHING)
        check_overlap(small, large, NOTHING)


# --- onto the grid


@examples(max_examples=15)
@given(seeds)
def test_resampling_onto_the_grid_is_that_of_a_transform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scan = noise(rng, random_geometry(rng))
    grid = cut(scan.geometry, 0.6)
    matrix = np.eye(4)
    matrix[:3, :3] += 0.02 * rng.normal(size=(3, 3))
    matrix[:3, 3] = scan.geometry.centre - matrix[:3, :3] @ scan.geometry.centre + 0.1 * rng.normal(size=3)
    through = AffineTransform(matrix)
    found = on_working_grid(scan, None, grid, through, AS_IT_IS, CPU)
    np.testing.assert_allclose(found.image[0], resample(scan, grid, through).data, atol=2e-5)
    assert found.known.min() == 1
    other = on_working_grid(scan, None, grid, through.inverse(), AS_IT_IS, CPU)
    assert (other.image - found.image).abs().max() > 1e-3


def test_on_its_own_grid_a_scan_stays_as_it_is(oblique_geometry: ImageGeometry) -> None:
    scan = Volume(torch.rand(oblique_geometry.shape), oblique_geometry)
    found = on_working_grid(scan, None, oblique_geometry, NOTHING, AS_IT_IS, CPU)
    torch.testing.assert_close(found.image[0], scan.data, atol=1e-4, rtol=0)


def test_outside_the_scan_nothing_is_known_and_the_value_is_that_of_air() -> None:
    scan = volume((8, 8, 8))
    scan.data[0, 0, 0] = -3
    grid = scan.geometry.cropped((-4, 0, 0), (16, 8, 8))
    found = on_working_grid(scan, None, grid, NOTHING, AS_IT_IS, CPU)
    known = torch.zeros(8, 8, 16)
    known[..., 4:12] = 1
    assert torch.equal(found.known[0], known)
    assert (found.image[0][known == 0] == -3).all()
    assert (found.body[0][known == 0] == 0).all()


def test_a_mask_hides_voxels_and_moves_with_its_scan() -> None:
    scan = volume((12, 8, 8))
    mask = torch.zeros(scan.geometry.shape)
    mask[..., 6:] = 2  # any value but 0
    through = AffineTransform.translation((2.0, 0.0, 0.0))
    found = on_working_grid(scan, LabelMap(mask, scan.geometry), scan.geometry, through, AS_IT_IS, CPU)
    assert found.known[..., :4].max() == 0
    assert found.known[..., 4:10].min() == 1
    assert found.known[..., 10:].max() == 0
    assert (found.body <= found.known).all()


def test_the_body_is_what_is_brighter_than_the_foreground_and_one_voxel_around() -> None:
    scan = volume((9, 9, 9))
    scan.data[:] = 0.1
    scan.data[4, 4, 3] = 0.9
    scaling = Scaling(0.0, 1.0, True, 0.5)
    body = on_working_grid(scan, None, scan.geometry, NOTHING, scaling, CPU).body[0]
    assert body.sum() == 27
    assert body[3:6, 3:6, 2:5].min() == 1


@pytest.mark.parametrize("factors", [(2, 3, 4), (1, 4, 2)])
def test_a_much_finer_scan_is_averaged_before_it_is_sampled(factors: tuple[int, int, int]) -> None:
    fine = volume((16, 24, 32), spacing=(0.5, 0.7, 0.6))
    grid = fine.geometry.coarsened(factors)
    found = on_working_grid(fine, None, grid, NOTHING, AS_IT_IS, CPU)
    i, j, k = factors
    blocks = fine.data.reshape(32 // k, k, 24 // j, j, 16 // i, i).mean((1, 3, 5))
    torch.testing.assert_close(found.image[0], blocks, atol=1e-5, rtol=0)
    assert (resample(fine, grid, NOTHING).data - blocks).abs().max() > 0.1


def test_stripes_finer_than_the_grid_do_not_become_a_pattern() -> None:
    stripes = ImageGeometry((64, 8, 8), (0.4, 1.0, 1.0))
    scan = Volume((torch.arange(64.0) % 2).expand(8, 8, 64).contiguous(), stripes)
    grid = ImageGeometry((24, 8, 8), (1.0, 1.0, 1.0), (0.3, 0.0, 0.0))
    found = on_working_grid(scan, None, grid, NOTHING, AS_IT_IS, CPU)
    torch.testing.assert_close(found.image, torch.full_like(found.image, 0.5))


def test_the_scan_and_its_mask_are_not_changed() -> None:
    scan = volume((9, 9, 9))
    mask = LabelMap((scan.data > 0.5).int(), scan.geometry)
    before = scan.data.clone(), mask.data.clone()
    on_working_grid(scan, mask, scan.geometry, NOTHING, Scaling(0.2, 0.8, True, 0.1), CPU)
    Scaling(0.2, 0.8, True, 0.1).apply(scan.data)
    assert torch.equal(scan.data, before[0])
    assert torch.equal(mask.data, before[1])


# --- intensities


def test_a_window_becomes_0_to_1_and_cuts_beyond() -> None:
    scan = volume()
    scaling = Scaling.of(scan, Intensity(kind="window", low=-100.0, high=300.0, foreground=0.2))
    assert scaling.foreground == 0.2
    found = scaling.apply(torch.tensor([-1000.0, -100.0, 100.0, 300.0, 3000.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


def test_a_divisor_divides_and_does_nothing_else() -> None:
    found = Scaling.of(volume(), Intensity(kind="divisor", divisor=500.0)).apply(
        torch.tensor([-1000.0, 750.0])
    )
    torch.testing.assert_close(found, torch.tensor([-2.0, 1.5]))


def test_percentiles_are_those_of_the_scan() -> None:
    grid = ImageGeometry((10, 10, 10))
    scan = Volume(torch.randperm(1000).float().view(10, 10, 10), grid)
    intensity = Intensity(kind="percentiles", low_percentile=5.0, high_percentile=90.0)
    scaling = Scaling.of(scan, intensity)
    low, high = np.percentile(scan.data.numpy(), (5, 90))
    assert (scaling.low, scaling.high) == (pytest.approx(low, abs=1), pytest.approx(high, abs=1))
    assert scaling.apply(scan.data).min() == 0
    assert scaling.apply(scan.data).max() == 1


def test_where_nearly_all_voxels_are_equal_the_whole_range_is_taken() -> None:
    scan = volume((10, 10, 10))
    scan.data[:] = 4
    scan.data[5, 5, 5] = 9
    scaling = Scaling.of(scan, Intensity(kind="percentiles"))
    assert (scaling.low, scaling.high) == (4.0, 9.0)


def test_auto_takes_the_window_where_both_scans_look_like_ct() -> None:
    ct, other = volume(), volume()
    ct.data[0] = -1000
    assert resolved(Intensity(), ct, ct).kind == "window"
    assert resolved(Intensity(), ct, other).kind == "percentiles"
    assert resolved(Intensity(), other, ct).kind == "percentiles"
    assert resolved(Intensity(kind="divisor"), ct, ct).kind == "divisor"


# --- cropping


def working(body: torch.Tensor) -> WorkingScan:
    return WorkingScan(torch.rand_like(body), torch.ones_like(body), body)


def test_the_window_holds_both_bodies_with_air_around_in_multiples_of_16() -> None:
    first, second = torch.zeros(1, 96, 64, 128), torch.zeros(1, 96, 64, 128)
    first[:, 40:50, 20:50, 60:70] = 1
    second[:, 30:42, 30:31, 90:101] = 1
    window = body_window((working(first), working(second)))
    for part, (low, high), n in zip(window, ((30, 50), (20, 50), (60, 101)), (96, 64, 128), strict=True):
        assert (part.stop - part.start) % 16 == 0
        assert max(0, low - 8) >= part.start >= 0
        assert min(n, high + 8) <= part.stop <= n
    assert [part.stop - part.start for part in window] == [48, 48, 64]


def test_without_a_body_nothing_is_cropped_and_bodies_at_the_border_stay_inside() -> None:
    nothing = working(torch.zeros(1, 32, 48, 64))
    assert body_window((nothing, nothing)) == (slice(0, 32), slice(0, 48), slice(0, 64))
    corner = torch.zeros(1, 32, 48, 64)
    corner[:, 31, 0, 63] = 1
    window = body_window((working(corner), nothing))
    assert window == (slice(0, 32), slice(0, 32), slice(32, 64)) or all(
        w.stop - w.start <= 32 for w in window
    )
    cropped = working(corner).cropped(window)
    assert cropped.body.sum() == 1
    assert cropped.image.shape[1:] == tuple(w.stop - w.start for w in window)
