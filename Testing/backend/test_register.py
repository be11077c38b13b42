"""`register` from end to end on small made-up patients whose true deformation is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

import pddnet
from pddnet.config import LatticeLevel, Preset
from pddnet.errors import InputError, InsufficientMemoryError, RegistrationCancelled
from pddnet.geometry import ImageGeometry
from pddnet.lattice import smallest_determinant
from pddnet.points import slabs
from pddnet.progress import Progress
from pddnet.registration import RegistrationResult, register, resolve_device
from pddnet.synthetic import synthetic_deformation, synthetic_patient
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, resample

SPACING = 8.0
COUPLINGS = (0.0005, 0.0025, 0.0125, 0.0625)
SMALL = Preset(
    "small",
    "four levels at 8 mm",
    (
        LatticeLevel(step=4, spacing=8, reach=12, features="coarse", sub=2, couplings=(0.002, 0.01, 0.05)),
        LatticeLevel(step=2, spacing=4, reach=6, features="fine", intensity_weight=3.0, couplings=COUPLINGS),
        LatticeLevel(step=2, spacing=2, reach=2, features="fine", intensity_weight=5.0, couplings=COUPLINGS),
        LatticeLevel(step=1, spacing=2, reach=1, features="full", intensity_weight=5.0, couplings=COUPLINGS),
    ),
    spacing_mm=SPACING,
    intensity=pddnet.load_preset("abdomen-ct").intensity,
    global_stage="off",
)
QUICK = replace(SMALL, levels=SMALL.levels[1:2])


@pytest.fixture(scope="module")
def patient() -> Volume:
    return synthetic_patient(4, (40, 32, 40), SPACING, "portal-venous").ct


@pytest.fixture(scope="module")
def truth(patient: Volume) -> DisplacementField:
    return synthetic_deformation(patient.geometry, 7, magnitude_mm=30.0, smoothness_mm=130.0)


@pytest.fixture(scope="module")
def fixed(patient: Volume, truth: DisplacementField) -> Volume:
    """What the patient looks like through the true transform: `truth` takes its points to the patient's."""
    return truth.warp(patient)


@pytest.fixture(scope="module")
def found(fixed: Volume, patient: Volume) -> RegistrationResult:
    return register(fixed, patient, preset=SMALL, device="cpu")


def body_points(scan: Volume) -> torch.Tensor:
    points = torch.cat([points for _, points in slabs(scan.geometry)])
    return points[scan.data > -300]


def mean_error(result: RegistrationResult, truth: DisplacementField | AffineTransform, scan: Volume) -> float:
    """Mean distance of found and true points in the body, mm."""
    points = body_points(scan)
    return float((result.displacement.apply(points) - truth.apply(points)).norm(dim=-1).mean())


def relabelled(scan: Volume, order: tuple[int, int, int], flips: tuple[int, ...]) -> Volume:
    """The same scan in space with its array axes (D, H, W) permuted and flipped."""
    geometry = scan.geometry
    axes = [2 - axis for axis in order][::-1]  # the old grid axis of each new one, (x, y, z)
    corner = np.zeros(3)
    signs = np.ones(3)
    for axis in flips:  # old array axes
        corner[2 - axis], signs[2 - axis] = geometry.size[2 - axis] - 1, -1
    direction = (np.asarray(geometry.direction) * signs)[:, axes]
    moved = ImageGeometry(
        tuple(geometry.size[a] for a in axes),  # type: ignore[arg-type]
        tuple(geometry.spacing[a] for a in axes),  # type: ignore[arg-type]
        tuple(geometry.to_lps(corner)),
        tuple(tuple(float(x) for x in row) for row in direction),  # type: ignore[arg-type]
    )
    return Volume(scan.data.flip(flips).permute(order).contiguous(), moved)


# --- the answer


def test_a_known_smooth_deformation_is_recovered_in_mm(
    found: RegistrationResult, fixed: Volume, truth: DisplacementField
) -> None:
    points = body_points(fixed)
    before = float((truth.apply(points) - points).norm(dim=-1).mean())
    assert before > 8
    assert mean_error(found, truth, fixed) < 0.4 * before
    assert mean_error(found, truth, fixed) < 0.6 * SPACING


def test_warping_by_the_result_makes_the_scans_alike_on_the_fixed_grid(
    found: RegistrationResult, fixed: Volume, patient: Volume
) -> None:
    warped = found.displacement.warp(patient)
    assert warped.geometry == fixed.geometry
    after, before = (
        (other.data - fixed.data).clamp(-300, 300).square().mean() for other in (warped, patient)
    )
    assert after < 0.5 * before


def test_the_result_does_not_fold(found: RegistrationResult) -> None:
    vectors = found.displacement.vectors.permute(3, 0, 1, 2)
    spacing = found.displacement.geometry.spacing
    assert spacing == (2 * SPACING,) * 3
    assert smallest_determinant(vectors / spacing[0], 1).min() > 0


def test_the_field_covers_the_fixed_scan_and_the_uncertainty_lies_on_it(
    found: RegistrationResult, fixed: Volume
) -> None:
    grid = found.displacement.geometry
    index = grid.to_index(fixed.geometry.corners())
    assert index.min() > -1e-4
    assert (index < np.asarray(grid.size) - 1 + 1e-4).all()
    for volume in (found.uncertainty.std_mm, found.uncertainty.entropy):
        assert volume.geometry == grid
        assert torch.isfinite(volume.data).all()
        assert volume.data.min() >= 0
        assert volume.data.max() > 0


def test_the_inverse_undoes_the_result(found: RegistrationResult, patient: Volume) -> None:
    inverse, residual = found.inverse(patient.geometry)
    points = body_points(patient)
    assert (found.displacement.apply(points) - points).norm(dim=-1).mean() > 5
    back = found.displacement.apply(inverse.apply(points)) - points
    assert back.norm(dim=-1).mean() < 0.05
    assert residual.geometry == patient.geometry


def test_the_result_says_how_it_came_about(found: RegistrationResult) -> None:
    assert found.preset == "small"
    assert found.device == "cpu"
    assert found.starts == ()
    assert list(found.stage_seconds) == ["prepare", *(f"level {n}" for n in (1, 2, 3, 4)), "finish"]
    assert sum(found.stage_seconds.values()) <= found.seconds
    assert found.peak_memory_mb > 100


def test_two_runs_agree_to_the_bit_and_the_scans_are_not_changed(
    found: RegistrationResult, fixed: Volume, patient: Volume
) -> None:
    before = fixed.data.clone(), patient.data.clone()
    again = register(fixed, patient, preset=SMALL, device="cpu")
    assert torch.equal(again.displacement.vectors, found.displacement.vectors)
    assert torch.equal(again.uncertainty.entropy.data, found.uncertainty.entropy.data)
    assert torch.equal(fixed.data, before[0])
    assert torch.equal(patient.data, before[1])


# --- geometry of the scans


@pytest.mark.parametrize(
    ("order", "flips"), [((0, 1, 2), (2,)), ((2, 0, 1), ()), ((1, 2, 0), (0, 2)), ((2, 1, 0), (0, 1, 2))]
)
def test_the_axes_of_the_moving_scan_do_not_matter(
    order: tuple[int, int, int],
    flips: tuple[int, ...],
    found: RegistrationResult,
    fixed: Volume,
    patient: Volume,
) -> None:
    moved = relabelled(patient, order, flips)
    unmoved = resample(moved, patient.geometry, AffineTransform.identity())
    torch.testing.assert_close(unmoved.data, patient.data, atol=0.01, rtol=0)  # HU; weights are float32
    other = register(fixed, moved, preset=SMALL, device="cpu")
    difference = (other.displacement.vectors - found.displacement.vectors).norm(dim=-1)
    assert difference.mean() < 0.05


@pytest.mark.parametrize(("order", "flips"), [((2, 0, 1), (1,)), ((1, 0, 2), (2,))])
def test_the_axes_of_the_fixed_scan_do_not_matter_in_mm(
    order: tuple[int, int, int],
    flips: tuple[int, ...],
    fixed: Volume,
    patient: Volume,
    truth: DisplacementField,
) -> None:
    moved = relabelled(fixed, order, flips)
    result = register(moved, patient, preset=SMALL, device="cpu")
    assert result.displacement.warp(patient).geometry == moved.geometry
    assert mean_error(result, truth, fixed) < 0.6 * SPACING


def test_scans_of_other_spacing_and_oblique_axes_give_the_same_answer_in_mm(
    fixed: Volume, patient: Volume, truth: DisplacementField
) -> None:
    turn = np.deg2rad(20)
    rotation = ((np.cos(turn), -np.sin(turn), 0.0), (np.sin(turn), np.cos(turn), 0.0), (0.0, 0.0, 1.0))
    oblique = ImageGeometry((70, 60, 36), (6.0, 6.0, 10.0), direction=rotation)
    shift = patient.geometry.centre - oblique.centre
    oblique = replace(oblique, origin=tuple(shift))
    moving = resample(patient, oblique, AffineTransform.identity())
    result = register(fixed, moving, preset=SMALL, device="cpu")
    assert mean_error(result, truth, fixed) < 0.7 * SPACING


# --- starts and masks


def test_an_initial_transform_is_followed_and_part_of_the_result(
    fixed: Volume, patient: Volume, truth: DisplacementField
) -> None:
    far = Volume(
        patient.data, replace(patient.geometry, origin=tuple(np.add(patient.geometry.origin, (300, 0, 0))))
    )
    shift = AffineTransform.translation((300.0, 0.0, 0.0))
    shifted_truth = DisplacementField(truth.vectors + torch.tensor([300.0, 0.0, 0.0]), truth.geometry)
    result = register(fixed, far, preset=SMALL, device="cpu", initial_transform=shift)
    assert mean_error(result, shifted_truth, fixed) < 0.6 * SPACING
    by_field = register(fixed, far, preset=SMALL, device="cpu", initial_transform=shifted_truth)
    assert mean_error(by_field, shifted_truth, fixed) < mean_error(result, shifted_truth, fixed)
    centred = register(fixed, far, preset=SMALL, device="cpu", initial_transform="centres")
    torch.testing.assert_close(centred.displacement.vectors, result.displacement.vectors, atol=0.05, rtol=0)


def moved(scan: Volume, transform: AffineTransform) -> Volume:
    """The same voxels, carried along by a rigid transform."""
    geometry, linear = scan.geometry, transform.matrix[:3, :3]
    origin = transform.apply(torch.tensor(geometry.origin, dtype=torch.float64)).tolist()
    direction = linear @ np.asarray(geometry.direction)
    return Volume(scan.data, replace(geometry, origin=tuple(origin), direction=tuple(map(tuple, direction))))


def test_the_global_stage_runs_when_it_is_asked_for_and_its_start_is_used(
    fixed: Volume, patient: Volume
) -> None:
    shift = (150.0, 0.0, 90.0)  # far beyond the reach of the levels
    far = moved(patient, AffineTransform.translation(shift))
    preset = replace(QUICK, global_stage="translation")
    result = register(fixed, far, preset=preset, device="cpu")
    assert result.starts[0].dissimilarity < 0.98 * max(start.dissimilarity for start in result.starts)
    assert np.linalg.norm(result.starts[0].transform.matrix[:3, 3] - shift) < 25
    assert np.linalg.norm(result.displacement.vectors.mean((0, 1, 2)).numpy() - shift) < 25
    without = register(fixed, far, preset=preset, device="cpu", global_stage=False)
    assert without.starts == ()
    assert "global" in result.stage_seconds
    assert "global" not in without.stage_seconds


def test_the_global_stage_corrects_a_given_start_in_the_fixed_space(patient: Volume) -> None:
    quarter_turn = np.eye(4)
    quarter_turn[:2, :2] = ((0, -1), (1, 0))
    given = AffineTransform(quarter_turn)
    truth = AffineTransform.translation((48.0, 0.0, 0.0)).followed_by(given)  # the given start forgets 48 mm
    preset = replace(SMALL, levels=SMALL.levels[2:3], global_stage="affine")  # the level reaches only 16 mm
    result = register(patient, moved(patient, truth), preset=preset, device="cpu", initial_transform=given)
    assert mean_error(result, given, patient) > 40
    assert mean_error(result, truth, patient) < 0.6 * SPACING


def test_what_lies_outside_the_masks_does_not_pull(
    fixed: Volume, patient: Volume, truth: DisplacementField
) -> None:
    """The fixed scan's upper half is replaced by that of a patient pushed 48 mm to the left, and masked."""
    depth = fixed.geometry.size[2]
    spoilt = fixed.data.clone()
    spoilt[depth // 2 :] = torch.roll(patient.data, 6, 2)[depth // 2 :]
    mask = torch.ones(fixed.geometry.shape, dtype=torch.int32)
    mask[depth // 2 :] = 0
    scan = Volume(spoilt, fixed.geometry)
    masked = register(scan, patient, preset=SMALL, device="cpu", fixed_mask=LabelMap(mask, fixed.geometry))
    unmasked = register(scan, patient, preset=SMALL, device="cpu")
    x = {
        name: result.displacement.on(fixed.geometry).vectors[..., 0]
        for name, result in (("masked", masked), ("unmasked", unmasked))
    }
    upper = slice(depth // 2 + 5, depth - 5)
    inside = fixed.data[upper] > -300
    assert x["unmasked"][upper][inside].mean() < -20
    assert x["masked"][upper][inside].mean() > -10
    far_below = fixed.data.clone()
    far_below[depth // 2 - 4 :] = -1000
    lower = body_points(Volume(far_below, fixed.geometry))
    assert (masked.displacement.apply(lower) - truth.apply(lower)).norm(dim=-1).mean() < 0.6 * SPACING


def test_the_mask_of_the_moving_scan_counts_too(fixed: Volume, patient: Volume) -> None:
    mask = torch.ones(patient.geometry.shape, dtype=torch.int32)
    whole = register(fixed, patient, preset=QUICK, device="cpu")
    everything = register(
        fixed, patient, preset=QUICK, device="cpu", moving_mask=LabelMap(mask, patient.geometry)
    )
    assert torch.equal(everything.displacement.vectors, whole.displacement.vectors)
    mask[:20] = 0
    half = register(fixed, patient, preset=QUICK, device="cpu", moving_mask=LabelMap(mask, patient.geometry))
    assert not torch.equal(half.displacement.vectors, whole.displacement.vectors)


# --- uncertainty, refinement, the paper's regulariser


def test_the_uncertainty_is_larger_where_there_is_no_structure(fixed: Volume) -> None:
    flat = fixed.data.clone()
    flat[:, :, 20:] = 40 + 5 * torch.randn_like(flat[:, :, 20:])  # tissue without organs, and noise
    other = flat.clone()
    other[:, :, 20:] = 40 + 5 * torch.randn_like(flat[:, :, 20:])
    result = register(Volume(flat, fixed.geometry), Volume(other, fixed.geometry), preset=QUICK, device="cpu")
    std = result.uncertainty.std_mm
    at = std.geometry.to_index(fixed.geometry.to_lps([(8, 16, 20), (32, 16, 20)])).round().astype(int)
    (organs_i, j, k), (noise_i, _, _) = at
    rows = (slice(k - 4, k + 5), slice(j - 3, j + 4))
    organs, noise = (std.data[(*rows, slice(i - 2, i + 3))].mean() for i in (organs_i, noise_i))
    assert noise > 1.3 * organs


def test_refinement_lowers_the_difference(fixed: Volume, patient: Volume) -> None:
    plain = register(fixed, patient, preset=QUICK, device="cpu")
    refined = register(fixed, patient, preset=replace(QUICK, refinement_iterations=25), device="cpu")
    assert list(refined.stage_seconds)[-2:] == ["refine", "finish"]
    after, before = (
        (r.displacement.warp(patient).data - fixed.data).clamp(-300, 300).square().mean()
        for r in (refined, plain)
    )
    assert after < before


def test_levels_with_the_paper_s_regulariser_recover_the_deformation_too(
    fixed: Volume, patient: Volume, truth: DisplacementField
) -> None:
    levels = tuple(
        replace(level, regulariser="min-convolution", couplings=(), scale=60.0)
        for level in SMALL.lattice_levels
    )
    result = register(fixed, patient, preset=replace(SMALL, levels=levels), device="cpu")
    assert mean_error(result, truth, fixed) < 0.8 * SPACING
    assert torch.isfinite(result.uncertainty.std_mm.data).all()


# --- progress, cancelling, refusals


def test_progress_rises_to_one() -> None:
    scan = synthetic_patient(1, (16, 16, 16), 20.0).ct
    reports: list[Progress] = []
    register(scan, scan, preset=replace(QUICK, spacing_mm=20.0), device="cpu", on_progress=reports.append)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert [report.stage for report in reports] == ["prepare", "level 1", "finish", "done"]


def test_cancelling_at_any_point_raises_and_leaves_the_scans_alone() -> None:
    scan = synthetic_patient(1, (16, 16, 16), 20.0).ct
    before = scan.data.clone()
    preset = replace(QUICK, spacing_mm=20.0, global_stage="affine", refinement_iterations=3)
    asked = count()
    register(scan, scan, preset=preset, device="cpu", cancelled=lambda: next(asked) < 0)
    questions = next(asked)
    assert questions > 30
    for stop in (0, 1, questions // 3, 2 * questions // 3, questions - 1):
        numbers = count()
        with pytest.raises(RegistrationCancelled):
            register(
                scan, scan, preset=preset, device="cpu", cancelled=lambda n=numbers, at=stop: next(n) >= at
            )
        assert next(numbers) == stop + 1  # not asked again
    assert torch.equal(scan.data, before)


def test_too_little_memory_is_refused_before_anything_runs(fixed: Volume, patient: Volume) -> None:
    def fail(_: Progress) -> None:
        pytest.fail("work began")

    with pytest.raises(InsufficientMemoryError, match="the limit given is 10 MB"):
        register(fixed, patient, preset=SMALL, device="cpu", memory_limit_mb=10.0, on_progress=fail)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "nonsense"}, "preset 'nonsense' is not known"),
        ({"device": "tpu"}, "device 'tpu' is not available; choose auto or one of cpu"),
        ({"weights": "mind2"}, "preset 'small' uses no network weights"),
        ({"initial_transform": "corners"}, "initial_transform is 'corners'"),
        ({"initial_transform": AffineTransform.translation((5000.0, 0.0, 0.0))}, "do not overlap"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    options: dict[str, object], message: str, fixed: Volume, patient: Volume
) -> None:
    with pytest.raises(InputError, match=message):
        register(fixed, patient, **{"preset": SMALL, "device": "cpu", **options})  # type: ignore[arg-type]


def test_scans_and_masks_are_checked_by_role(fixed: Volume, patient: Volume) -> None:
    broken = Volume(patient.data.clone(), patient.geometry)
    broken.data[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="the moving scan has 1 voxels that are NaN"):
        register(fixed, broken, preset=SMALL, device="cpu")
    with pytest.raises(InputError, match="the fixed mask covers nothing"):
        register(
            fixed,
            patient,
            preset=SMALL,
            fixed_mask=LabelMap(torch.zeros(fixed.geometry.shape), fixed.geometry),
        )


def test_a_grid_too_small_for_the_coarse_levels_skips_them() -> None:
    scan = synthetic_patient(1, (14, 14, 14), 20.0).ct
    first = replace(SMALL.lattice_levels[0], step=16, spacing=16, reach=16)
    result = register(
        scan, scan, preset=replace(SMALL, spacing_mm=20.0, levels=(first, *QUICK.levels)), device="cpu"
    )
    assert "level 1" not in result.stage_seconds
    assert "level 2" in result.stage_seconds


def test_devices_are_named() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda' is not available"):
            resolve_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_answer(found: RegistrationResult, fixed: Volume, patient: Volume) -> None:
    result = register(fixed, patient, preset=SMALL, device="cuda")
    assert result.device == "cuda:0"
    difference = (result.displacement.vectors - found.displacement.vectors).norm(dim=-1)
    assert difference.mean() < 0.1


def test_arguments_of_the_wrong_kind_are_named() -> None:
    geometry = ImageGeometry((8, 8, 8))
    scan = Volume(torch.rand(8, 8, 8), geometry)
    with pytest.raises(InputError, match="initial_transform is a int"):
        register(scan, scan, initial_transform=5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fixed mask is a Volume; a LabelMap is needed"):
        register(scan, scan, fixed_mask=scan)  # type: ignore[arg-type]
