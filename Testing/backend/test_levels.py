"""One level of a registration: features, weights, and what a search finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pddnet.config import FeatureScale, LatticeLevel
from pddnet.features.mind_ssc import mind_ssc
from pddnet.lattice import Lattice, warp_on
from pddnet.lattice_correlation import at_control_points
from pddnet.level_scan import FIELD_STEP, LevelScan
from pddnet.levels import FieldPair, LevelSettings, control_point_weights, fitted_to, run_level
from pddnet.preprocessing import WorkingScan

VOXELS = (32, 16, 48)
SETTINGS = LevelSettings(body_weights=True, temperature=0.05)
COUPLINGS = (0.002, 0.01, 0.05)
LEVELS = {
    "coarse": LatticeLevel(step=4, spacing=4, reach=8, features="coarse", sub=2, couplings=COUPLINGS),
    "fine": LatticeLevel(step=2, spacing=4, reach=6, features="fine", couplings=COUPLINGS),
    "full": LatticeLevel(step=1, spacing=2, reach=2, features="full", couplings=COUPLINGS),
}


def nothing() -> None:
    pass


def smooth_image(voxels: tuple[int, int, int] = VOXELS) -> torch.Tensor:
    noise = torch.rand(1, 1, *(n // 2 for n in voxels))
    return F.interpolate(noise, voxels, mode="trilinear", align_corners=False)[0]


def scan(image: torch.Tensor, body: torch.Tensor | None = None) -> WorkingScan:
    body = torch.ones_like(image) if body is None else body
    return WorkingScan(image, torch.ones_like(image), body)


def shifted_pair(shift: tuple[int, int, int]) -> tuple[WorkingScan, WorkingScan]:
    """A fixed scan and one whose structures lie `shift` voxels (x, y, z) further along."""
    image = smooth_image()
    return scan(image), scan(torch.roll(image, shift[::-1], (1, 2, 3)))


def run(fixed: WorkingScan, moving: WorkingScan, level: LatticeLevel) -> FieldPair:
    zero = FieldPair.zero(LevelScan(fixed).voxels, fixed.image.device)
    return run_from(zero, fixed, moving, level)


def run_from(
    start: FieldPair, fixed: WorkingScan, moving: WorkingScan, level: LatticeLevel, measured: bool = True
) -> FieldPair:
    return run_level(LevelScan(fixed), LevelScan(moving), start, level, SETTINGS, nothing, measured)


def level_features(image: torch.Tensor, level: LatticeLevel) -> torch.Tensor:
    return LevelScan(scan(image)).features(level, None, nothing)


def inner(field: torch.Tensor, margin: int = 4) -> torch.Tensor:
    """The field (3, D, H, W) away from the border, (N, 3); rolled scans differ there."""
    depth, height, width = (
        slice(min(margin, n // 2 - 1), n - min(margin, n // 2 - 1)) for n in field.shape[1:]
    )
    return field[:, depth, height, width].flatten(1).T


# --- features


@pytest.mark.parametrize(
    ("features", "step", "sub"),
    [
        ("coarse", 2, 1),
        ("coarse", 8, 2),
        ("coarse", 4, 1),
        ("fine", 2, 1),
        ("fine", 4, 2),
        ("full", 1, 1),
        ("full", 4, 2),
    ],
)
def test_features_lie_on_the_lattice_of_steps_with_finer_cells_as_channels(
    features: FeatureScale, step: int, sub: int
) -> None:
    level = LatticeLevel(step, step, step, features, sub=sub, couplings=COUPLINGS)
    found = level_features(smooth_image(), level)
    assert found.shape == (13 * sub**3, *(n // step for n in VOXELS))


@pytest.mark.parametrize(("features", "step"), [("coarse", 8), ("fine", 4), ("full", 2)])
def test_a_squared_difference_over_channels_is_the_mean_over_finer_cells(
    features: FeatureScale, step: int
) -> None:
    whole = LatticeLevel(step, step, step, features, sub=2, intensity_weight=3.0, couplings=COUPLINGS)
    cells = replace(whole, step=step // 2, spacing=step // 2, reach=step // 2, sub=1)
    a, b = smooth_image(), smooth_image()
    found = (level_features(a, whole) - level_features(b, whole)).square().sum(0)
    finer = (level_features(a, cells) - level_features(b, cells)).square().sum(0)
    torch.testing.assert_close(found, F.avg_pool3d(finer[None], 2)[0])


def test_each_scale_is_the_descriptor_it_says_and_the_weighted_intensity() -> None:
    image = smooth_image()
    halved = F.avg_pool3d(image[None], 2)
    expected = {
        "coarse": (mind_ssc(halved, dilation=1), halved),
        "fine": (mind_ssc(image[None], dilation=2, stride=2), halved),
        "full": (mind_ssc(image[None], dilation=2), image[None]),
    }
    for name, (descriptor, intensity) in expected.items():
        step = 1 if name == "full" else 2
        level = replace(LEVELS[name], step=step, spacing=step, reach=step, sub=1, intensity_weight=2.5)
        found = level_features(image, level)
        torch.testing.assert_close(found, torch.cat((descriptor, 2.5 * intensity), 1)[0])


@pytest.mark.parametrize("name", ["coarse", "fine", "full"])
def test_features_at_control_points_are_those_of_the_whole_scan_there(name: FeatureScale) -> None:
    level, image = replace(LEVELS[name], intensity_weight=1.5), smooth_image()
    one = LevelScan(scan(image))
    expected = at_control_points(one.features(level, None, nothing), level.spacing // level.step)
    found = one.point_features(level, nothing)
    # the bounds of the variance come from its mean over what is described: at the points, or everywhere
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["coarse", "fine", "full"])
def test_a_scan_seen_through_a_field_has_the_features_of_the_warped_scan(name: FeatureScale) -> None:
    level, image = LEVELS[name], smooth_image()
    half = Lattice.of_cells(VOXELS, FIELD_STEP)
    field = F.interpolate(torch.randn(1, 3, 4, 3, 5), half.shape, mode="trilinear")[0]
    found = LevelScan(scan(image)).features(level, field, nothing)
    warped = warp_on(image, Lattice(VOXELS, 1, 0.0), field, half)
    difference = (found - level_features(warped, level)).abs().mean()
    still = (found - level_features(image, level)).abs().mean()
    # coarse features are those of the pooled image, warped; not quite of the warped image, pooled
    assert difference < (0.35 * still if name == "coarse" else 1e-6)


def test_features_are_not_changed_by_a_level_that_weights_its_intensity() -> None:
    level, one = LEVELS["fine"], LevelScan(scan(smooth_image()))
    plain = one.features(level, None, nothing).clone()
    one.features(replace(level, intensity_weight=7.0), None, nothing)
    assert torch.equal(one.features(level, None, nothing), plain)


# --- weights


def test_weights_are_the_share_of_each_cell_in_the_body() -> None:
    image = smooth_image()
    body = (torch.rand_like(image) < 0.5).float()
    body[:, :16] = 0
    level = LEVELS["fine"]
    zero = FieldPair.zero(VOXELS, image.device).forward
    weights = control_point_weights(LevelScan(scan(image, body)), LevelScan(scan(image)), zero, level, True)
    torch.testing.assert_close(weights, F.avg_pool3d(body[None], level.spacing)[0, 0].clamp(min=0.02))
    assert weights[:4].max() == pytest.approx(0.02)
    everywhere = control_point_weights(
        LevelScan(scan(image, body)), LevelScan(scan(image)), zero, level, False
    )
    assert torch.equal(everywhere, torch.ones_like(everywhere))


def test_weights_ask_what_the_moving_scan_shows_where_the_field_leads() -> None:
    image = smooth_image()
    known = torch.ones_like(image)
    known[..., 24:] = 0  # the moving scan ends half-way along x
    moving, field = replace(scan(image), known=known), FieldPair.zero(VOXELS, image.device).forward
    level = LEVELS["fine"]
    still = control_point_weights(LevelScan(scan(image)), LevelScan(moving), field, level, True)
    assert still[..., :6].min() == 1
    assert still[..., 6:].max() < 1e-3  # next to nothing, less than known air
    field[0] += 8  # everything is found two control points further along x
    led = control_point_weights(LevelScan(scan(image)), LevelScan(moving), field, level, True)
    assert torch.equal(led[..., :-2], still[..., 2:])


# --- searches


@pytest.mark.parametrize(
    ("scale", "shift"), [("coarse", (8, -4, 4)), ("fine", (-6, 2, 4)), ("full", (2, -1, 1))]
)
def test_a_level_recovers_a_shift_of_whole_steps_in_both_directions(
    scale: FeatureScale, shift: tuple[int, int, int]
) -> None:
    found = run(*shifted_pair(shift), LEVELS[scale])
    wanted = torch.tensor(shift, dtype=torch.float32)
    for field, sign in ((found.forward, 1), (found.backward, -1)):
        error = (inner(field) - sign * wanted).abs().amax(1)
        assert error.median() < 0.05
    assert (inner(found.forward) + inner(found.backward)).norm(dim=1).median() < 0.05


def test_a_level_starts_from_the_field_so_far() -> None:
    fixed, moving = shifted_pair((10, -4, 6))  # beyond the reach of 6 along x
    level = LEVELS["fine"]
    start = FieldPair.zero(VOXELS, fixed.image.device)
    alone = run_from(start, fixed, moving, level)
    shift = torch.tensor([6.0, -4.0, 4.0]).view(3, 1, 1, 1)
    led = replace(start, forward=start.forward + shift, backward=start.backward - shift, at_rest=False)
    found = run_from(led, fixed, moving, level)
    wanted = torch.tensor([10.0, -4.0, 6.0])
    assert (inner(found.forward) - wanted).abs().amax(1).median() < 0.05
    assert (inner(alone.forward) - wanted).abs().amax(1).median() > 2


def test_the_paper_s_regulariser_finds_the_same_shift() -> None:
    level = replace(LEVELS["fine"], regulariser="min-convolution", couplings=(), scale=60.0)
    shift = (-4, 2, 2)
    found = run(*shifted_pair(shift), level)
    assert (inner(found.forward) - torch.tensor(shift)).abs().amax(1).median() < 0.6  # a step is 2
    assert torch.isfinite(found.spread).all()
    assert found.spread.min() >= 0
    softer = run(*shifted_pair(shift), replace(level, scale=0.6))
    assert inner(softer.spread).mean() > 2 * inner(found.spread).mean()  # its own probabilities, less sure


def test_only_a_symmetric_level_searches_backward() -> None:
    pair = shifted_pair((2, 2, -2))
    found = run(*pair, replace(LEVELS["fine"], symmetric=False))
    assert torch.equal(found.backward, torch.zeros_like(found.backward))
    assert (inner(found.forward) - torch.tensor([2.0, 2.0, -2.0])).abs().amax(1).median() < 0.05


def test_more_means_make_the_field_more_regular_and_keep_the_shift_they_share() -> None:
    fixed, moving = shifted_pair((2, 2, -2))
    noisy = scan(moving.image + 0.15 * torch.randn_like(moving.image))
    fields = [run(fixed, noisy, replace(LEVELS["fine"], symmetric=False, means=n)).forward for n in (1, 3)]
    rough, regular = (torch.diff(field, dim=3).abs().mean() for field in fields)
    assert 0 < regular < 0.85 * rough
    for field in fields:
        assert (inner(field).median(0).values - torch.tensor([2.0, 2.0, -2.0])).abs().max() < 0.2


def test_swapping_the_scans_swaps_the_fields() -> None:
    fixed, moving = scan(smooth_image()), scan(smooth_image())
    there, back = run(fixed, moving, LEVELS["fine"]), run(moving, fixed, LEVELS["fine"])
    torch.testing.assert_close(there.forward, back.backward)
    torch.testing.assert_close(there.backward, back.forward)


def test_what_the_mask_hides_does_not_pull() -> None:
    """Beyond x = 24 the moving scan is shifted the other way; without body there, nothing of that is followed."""
    image = smooth_image()
    one, other = (torch.roll(image, s, 3) for s in (4, -4))
    moving = torch.where(torch.arange(48) < 24, one, other)
    body = torch.ones_like(image)
    body[..., 20:] = 0
    masked = run(scan(image, body), scan(moving), replace(LEVELS["fine"], symmetric=False)).forward[0]
    unmasked = run(scan(image), scan(moving), replace(LEVELS["fine"], symmetric=False)).forward[0]
    assert masked[..., 14:22].mean() > 3
    assert unmasked[..., 14:22].mean() < -2


def test_the_spread_is_largest_where_nothing_can_be_seen_and_of_measured_levels_only() -> None:
    image = smooth_image()
    image[..., 24:] = 0.5
    fixed = scan(image)
    level = replace(LEVELS["fine"], symmetric=False)
    start = FieldPair.zero(VOXELS, image.device)
    once = run_from(start, fixed, fixed, level)
    assert once.spread[0, ..., 16:].mean() > 2 * once.spread[0, ..., :10].mean()
    assert once.spread[1, ..., 16:].mean() > once.spread[1, ..., :10].mean() + 1
    unmeasured = run_from(once, fixed, fixed, level, measured=False)
    assert len(unmeasured.spreads) == 1
    assert torch.equal(unmeasured.spread, once.spread)
    twice = run_from(unmeasured, fixed, fixed, level)
    assert len(twice.spreads) == 2
    assert torch.equal(twice.spread[1], twice.spreads[1][1])  # the entropy of the last


def test_the_scans_and_fields_are_not_changed_and_a_caller_can_stop() -> None:
    fixed, moving = shifted_pair((2, 0, 0))
    start = FieldPair.zero(VOXELS, fixed.image.device)
    before = [x.clone() for x in (fixed.image, moving.image, moving.body, start.forward, start.backward)]
    run_from(start, fixed, moving, LEVELS["fine"])
    after = [fixed.image, moving.image, moving.body, start.forward, start.backward]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))

    calls: list[None] = []

    def stop_soon() -> None:
        calls.append(None)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_level(LevelScan(fixed), LevelScan(moving), start, LEVELS["fine"], SETTINGS, stop_soon)


# --- fitting a level to a small grid


def test_a_level_that_fits_is_left_as_it_is() -> None:
    assert fitted_to(LEVELS["coarse"], (64, 48, 32)) == LEVELS["coarse"]


@pytest.mark.parametrize(("shortest", "reach"), [(32, 16), (48, 24), (64, 32), (128, 64), (256, 64)])
def test_the_reach_is_cut_to_half_the_shortest_edge_in_whole_steps(shortest: int, reach: int) -> None:
    level = LatticeLevel(step=8, spacing=16, reach=64, features="coarse", couplings=COUPLINGS)
    assert fitted_to(level, (256, shortest, 300)) == replace(level, reach=reach)


def test_the_reach_is_never_less_than_a_step_and_two_control_points_are_needed() -> None:
    level = LatticeLevel(step=16, spacing=16, reach=64, features="coarse", couplings=COUPLINGS)
    assert fitted_to(level, (64, 64, 31)) is None
    fitted = fitted_to(replace(level, spacing=8, step=8), (64, 64, 16))
    assert fitted is not None
    assert fitted.reach == 8
