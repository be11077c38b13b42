"""Where a registration starts: the choice among candidates on a made-up patient, and robust affine fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pddnet.config import load_preset
from pddnet.global_alignment import Candidate, CoarseScans, align_globally, robust_affine
from pddnet.grids import coarse_grids
from pddnet.placed_scans import PlacedScan
from pddnet.preprocessing import Scaling, WorkingScan, on_working_grid
from pddnet.synthetic import synthetic_patient
from pddnet.volume import Volume
from pddnet.warp import AffineTransform

CPU = torch.device("cpu")
NOTHING = AffineTransform.identity()
WINDOW = Scaling(-125.0, 275.0, True, 0.05)
PRESET = replace(load_preset("abdomen-ct"), spacing_mm=4.0)


def nothing() -> None:
    pass


@pytest.fixture(scope="module")
def patient() -> Volume:
    return synthetic_patient(4, (58, 50, 64), 6.0, "portal-venous").ct


@pytest.fixture(scope="module")
def other() -> Volume:
    return synthetic_patient(5, (58, 50, 64), 6.0, "portal-venous").ct


def turned(
    scan: Volume,
    degrees: float,
    shift: tuple[float, float, float],
    axis: tuple[float, float, float] = (0.36, 0.48, 0.8),
) -> tuple[Volume, AffineTransform]:
    """The same voxels turned about an axis through the scan's centre and shifted; and fixed -> moving."""
    angle, cross = np.deg2rad(degrees), np.cross(np.eye(3), -np.asarray(axis))
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix, centre = np.eye(4), scan.geometry.centre
    matrix[:3, :3] = rotation
    matrix[:3, 3] = centre - rotation @ centre + shift
    return carried(scan, matrix), AffineTransform(matrix)


def flipped(scan: Volume, signs: tuple[int, int, int]) -> Volume:
    """The same voxels with a header that flips axes of LPS about the scan's centre."""
    matrix = np.diag([*map(float, signs), 1.0])
    matrix[:3, 3] = scan.geometry.centre - matrix[:3, :3] @ scan.geometry.centre
    return carried(scan, matrix)


def carried(scan: Volume, matrix: np.ndarray) -> Volume:
    """The same voxels, their geometry taken along by a 4x4 matrix."""
    geometry = scan.geometry
    direction = tuple(tuple(map(float, row)) for row in matrix[:3, :3] @ np.asarray(geometry.direction))
    origin = tuple(map(float, matrix[:3, :3] @ np.asarray(geometry.origin) + matrix[:3, 3]))
    return Volume(scan.data, replace(geometry, origin=origin, direction=direction))


def cropped_in_z(scan: Volume, start: int, count: int) -> Volume:
    """`count` planes from plane `start`."""
    width, height, _ = scan.geometry.size
    return Volume(
        scan.data[start : start + count], scan.geometry.cropped((0, 0, start), (width, height, count))
    )


def scans(fixed: Volume, moving: Volume) -> CoarseScans:
    grids = coarse_grids(fixed.geometry, moving.geometry, np.eye(4), PRESET)
    placed = [
        PlacedScan(on_working_grid(scan, None, grid, NOTHING, WINDOW, CPU), grid)
        for scan, grid in zip((fixed, moving), grids, strict=True)
    ]
    return CoarseScans(placed[0], placed[1], moving.geometry.centre - fixed.geometry.centre)


def error_mm(found: Candidate, truth: AffineTransform, fixed: Volume) -> float:
    """The largest distance of found and true points at the corners of a box half as large as the scan."""
    centre = fixed.geometry.centre
    points = torch.as_tensor(centre + 0.5 * (fixed.geometry.corners() - centre))
    return float((found.transform.apply(points) - truth.apply(points)).norm(dim=-1).max())


# --- the choice of a start


def start_of(fixed: Volume, moving: Volume) -> Candidate:
    return align_globally(scans(fixed, moving), "affine", True, nothing).starts[0]


def test_scans_that_lie_on_each_other_start_from_the_scanner_s_coordinates(patient: Volume) -> None:
    found = align_globally(scans(patient, patient), "affine", True, nothing)
    assert found.starts[0].name == "scanner coordinates"
    assert np.array_equal(found.starts[0].transform.matrix, np.eye(4))
    assert found.starts[0].dissimilarity == pytest.approx(0, abs=1e-6)
    assert {candidate.name.split()[0] for candidate in found.starts} == {
        "scanner",
        "centres",
        "bodies",
        "affine",
    }
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("axis", "degrees"),
    [((1, 0, 0), 30.0), ((0, 1, 0), -30.0), ((0, 0, 1), 30.0), ((0.36, 0.48, 0.8), -30.0)],
)
def test_a_turn_of_30_degrees_and_a_shift_are_found(
    patient: Volume, axis: tuple[float, float, float], degrees: float
) -> None:
    moving, truth = turned(patient, degrees, (25.0, -30.0, 20.0), axis)
    found = align_globally(scans(patient, moving), "affine", True, nothing)
    assert error_mm(found.starts[0], truth, patient) < 4
    start = next(c for c in found.starts if c.name == "scanner coordinates")
    assert error_mm(start, truth, patient) > 60
    assert found.warnings == ()


def test_without_turns_only_the_shift_is_found(patient: Volume) -> None:
    moving, truth = turned(patient, 30.0, (25.0, -30.0, 20.0))
    found = align_globally(scans(patient, moving), "translation", True, nothing).starts[0]
    np.testing.assert_array_equal(found.transform.matrix[:3, :3], np.eye(3))
    assert error_mm(found, truth, patient) > 40


def test_a_shift_of_80_mm_is_found(patient: Volume) -> None:
    shifted, truth = turned(patient, 0.0, (-40.0, 30.0, 62.0))
    for stage, tolerance in (("translation", 1.0), ("affine", 3.0)):
        found = align_globally(scans(patient, shifted), stage, True, nothing)  # type: ignore[arg-type]
        assert error_mm(found.starts[0], truth, patient) < tolerance
        start = next(c for c in found.starts if c.name == "scanner coordinates")
        assert error_mm(start, truth, patient) == pytest.approx(79.6, abs=0.1)


@pytest.mark.parametrize("lower", [True, False])
def test_half_a_field_of_view_is_enough_though_its_centre_misleads(patient: Volume, lower: bool) -> None:
    half = cropped_in_z(patient, 0 if lower else 32, 32)
    part, truth = turned(half, 15.0, (20.0, -30.0, 60.0))
    found = align_globally(scans(patient, part), "affine", True, nothing).starts
    assert error_mm(found[0], truth, half) < 5
    assert error_mm(next(c for c in found if c.name == "centres"), truth, half) > 60
    back = AffineTransform(np.linalg.inv(truth.matrix))
    assert error_mm(start_of(part, patient), back, part) < 5


def test_another_patient_fits_better_than_before_and_a_turn_is_undone(patient: Volume, other: Volume) -> None:
    plain = align_globally(scans(patient, other), "affine", True, nothing).starts
    start = next(c for c in plain if c.name == "scanner coordinates")
    assert plain[0].dissimilarity < 0.9 * start.dissimilarity
    moving, turn = turned(other, 25.0, (30.0, 30.0, -30.0))
    assert error_mm(start_of(patient, moving), plain[0].transform.followed_by(turn), patient) < 12


def test_the_start_is_left_only_for_a_clearly_better_one(patient: Volume) -> None:
    noise = Volume(1000 * torch.rand(patient.geometry.shape) - 500, patient.geometry)
    for moving in (noise, turned(noise, 30.0, (40.0, 0.0, 0.0))[0], turned(patient, 0.0, (0.5, 0.0, 0.0))[0]):
        found = align_globally(scans(patient, moving), "affine", True, nothing)
        start = next(c for c in found.starts if c.name == "scanner coordinates")
        assert found.starts[0] is start or found.starts[0].dissimilarity < 0.95 * start.dissimilarity
        assert found.warnings == ()


def test_a_part_that_lies_in_its_place_stays_there(patient: Volume) -> None:
    for start, count in ((0, 30), (27, 37)):
        part = cropped_in_z(patient, start, count)
        assert start_of(patient, part).name == "scanner coordinates"
        assert start_of(part, patient).name == "scanner coordinates"


def test_a_given_start_is_only_refined(patient: Volume) -> None:
    moving, truth = turned(patient, 8.0, (10.0, 5.0, -5.0))
    found = align_globally(scans(patient, moving), "affine", False, nothing)
    assert [candidate.name for candidate in found.starts] == [
        "affine from initial transform",
        "initial transform",
    ]
    assert error_mm(found.starts[1], truth, patient) > 25
    assert error_mm(found.starts[0], truth, patient) < 2


def test_a_fixed_scan_that_shows_nothing_on_the_coarse_grid_keeps_its_start(patient: Volume) -> None:
    both = scans(patient, patient)
    blank = WorkingScan(
        *(torch.zeros_like(x) for x in (both.fixed.scan.image, both.fixed.scan.known, both.fixed.scan.body))
    )
    found = align_globally(replace(both, fixed=PlacedScan(blank, both.fixed.grid)), "affine", True, nothing)
    assert [candidate.name for candidate in found.starts] == ["scanner coordinates"]


def test_two_runs_are_the_same_to_the_last_bit(patient: Volume) -> None:
    moving, _ = turned(patient, 20.0, (25.0, -30.0, 20.0))
    first, again = (align_globally(scans(patient, moving), "affine", True, nothing).starts for _ in range(2))
    assert [c.name for c in first] == [c.name for c in again]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.transform.matrix, other.transform.matrix)
        assert one.dissimilarity == other.dissimilarity


def test_a_caller_can_stop_at_each_of_many_steps(patient: Volume) -> None:
    class StopError(Exception):
        pass

    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked == 30:
            raise StopError

    moving, _ = turned(patient, 20.0, (25.0, -30.0, 20.0))
    with pytest.raises(StopError):
        align_globally(scans(patient, moving), "affine", True, ask)
    assert asked == 30


# --- scans that lie the wrong way round


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ((1, -1, 1), "front to back ("),
        ((-1, 1, -1), "head to feet ("),
        ((1, -1, -1), "front to back and head to feet ("),
    ],
)
def test_a_scan_the_wrong_way_round_is_reported_and_not_flipped(
    patient: Volume, other: Volume, signs: tuple[int, int, int], words: str
) -> None:
    found = align_globally(scans(patient, flipped(other, signs)), "affine", True, nothing)
    assert len(found.warnings) == 1
    assert words in found.warnings[0]
    for candidate in found.starts:
        linear = candidate.transform.matrix[:3, :3]
        assert np.linalg.det(linear) > 0
        assert np.diag(linear).min() > 0.5


def test_left_and_right_are_not_told_apart_for_bodies_are_nearly_symmetric(
    patient: Volume, other: Volume
) -> None:
    assert align_globally(scans(patient, other), "affine", True, nothing).warnings == ()
    assert align_globally(scans(patient, flipped(other, (-1, 1, 1))), "affine", True, nothing).warnings == ()


# --- the robust fit


def random_affine() -> torch.Tensor:
    return torch.eye(3, dtype=torch.float64) + 0.2 * torch.randn(3, 3, dtype=torch.float64)


def test_a_fit_to_exact_points_is_exact_far_from_the_origin() -> None:
    linear, shift = random_affine(), torch.tensor([30.0, -200.0, 1000.0], dtype=torch.float64)
    points = 500 + 100 * torch.randn(200, 3, dtype=torch.float64)
    matrix = robust_affine(points, points @ linear.T + shift)
    assert matrix is not None
    np.testing.assert_allclose(matrix[:3, :3], linear, atol=1e-6)
    np.testing.assert_allclose(matrix[:3, 3], shift, atol=1e-3)
    np.testing.assert_array_equal(matrix[3], (0, 0, 0, 1))


def test_three_tenths_of_outliers_do_not_move_the_fit() -> None:
    linear, shift = random_affine(), torch.tensor([30.0, -20.0, 10.0], dtype=torch.float64)
    points = 100 * torch.rand(400, 3, dtype=torch.float64)
    target = points @ linear.T + shift + 0.1 * torch.randn_like(points)
    target[:120] += torch.tensor([80.0, 50.0, -60.0], dtype=torch.float64)  # all the same way
    matrix = robust_affine(points, target)
    assert matrix is not None
    true = points @ linear.T + shift
    found = points @ torch.from_numpy(matrix[:3, :3]).T + torch.from_numpy(matrix[:3, 3])
    assert (found - true).norm(dim=1).max() < 0.5
    design = torch.cat((points, torch.ones(400, 1, dtype=torch.float64)), 1)
    plain = design @ torch.linalg.lstsq(design, target).solution
    assert (plain - true).norm(dim=1).max() > 10


def test_too_few_points_fit_nothing() -> None:
    assert robust_affine(torch.randn(15, 3).double(), torch.randn(15, 3).double()) is None
    assert robust_affine(torch.randn(16, 3).double(), torch.randn(16, 3).double()) is not None
