"""Where a registration starts: robust affine fits, and the choice among candidates on a made-up patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pddnet.geometry import ImageGeometry
from pddnet.global_alignment import Candidate, CoarseScans, align_globally, robust_affine
from pddnet.grids import working_geometry
from pddnet.preprocessing import Scaling, on_working_grid
from pddnet.synthetic import synthetic_patient
from pddnet.volume import Volume
from pddnet.warp import AffineTransform

CPU = torch.device("cpu")
NOTHING = AffineTransform.identity()
WINDOW = Scaling(-125.0, 275.0, True, 0.05)


def nothing() -> None:
    pass


@pytest.fixture(scope="module")
def patient() -> Volume:
    return synthetic_patient(4, (58, 50, 64), 6.0, "portal-venous").ct


def turned(scan: Volume, degrees: float, shift: tuple[float, float, float]) -> tuple[Volume, AffineTransform]:
    """The same voxels turned about an oblique axis through the scan's centre and shifted; and fixed -> moving."""
    angle, axis = np.deg2rad(degrees), np.array([0.36, 0.48, 0.8])
    cross = np.cross(np.eye(3), -axis)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix, centre = np.eye(4), scan.geometry.centre
    matrix[:3, :3] = rotation
    matrix[:3, 3] = centre - rotation @ centre + shift
    truth = AffineTransform(matrix)
    direction = tuple(tuple(float(x) for x in row) for row in rotation @ np.asarray(scan.geometry.direction))
    origin = truth.apply(torch.tensor(scan.geometry.origin, dtype=torch.float64))
    geometry = ImageGeometry(scan.geometry.size, scan.geometry.spacing, tuple(origin.tolist()), direction)  # type: ignore[arg-type]
    return Volume(scan.data, geometry), truth


def scans(fixed: Volume, moving: Volume, grid_mm: float = 6.0) -> CoarseScans:
    grid = working_geometry(fixed.geometry, fixed.geometry, np.eye(4), grid_mm, 10**6)
    return CoarseScans(
        grid=grid,
        fixed=on_working_grid(fixed, None, grid, NOTHING, WINDOW, CPU),
        moving=lambda transform: on_working_grid(moving, None, grid, transform, WINDOW, CPU),
        fixed_centre=fixed.geometry.centre,
        moving_centre=moving.geometry.centre,
    )


def error_mm(found: Candidate, truth: AffineTransform, fixed: Volume) -> float:
    """The largest distance of found and true points at the corners of a box half as large as the scan."""
    centre = fixed.geometry.centre
    points = torch.as_tensor(centre + 0.5 * (fixed.geometry.corners() - centre))
    return float((found.transform.apply(points) - truth.apply(points)).norm(dim=-1).max())


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


# --- the choice of a start


def test_scans_that_lie_on_each_other_start_from_the_scanner_s_coordinates(patient: Volume) -> None:
    tried = align_globally(scans(patient, patient, 12.0), "affine", True, nothing)
    assert tried[0].name == "scanner coordinates"
    assert np.array_equal(tried[0].transform.matrix, np.eye(4))
    assert tried[0].dissimilarity == pytest.approx(0, abs=1e-6)
    assert len(tried) >= 4


def test_a_shift_of_tens_of_mm_is_found_by_the_centres_or_the_bodies(patient: Volume) -> None:
    shifted, truth = turned(patient, 0.0, (70.0, -45.0, 60.0))
    tried = align_globally(scans(patient, shifted), "translation", True, nothing)
    assert error_mm(tried[0], truth, patient) < 1
    assert {candidate.name.split()[0] for candidate in tried} == {"scanner", "centres", "bodies"}
    assert error_mm(next(c for c in tried if c.name == "scanner coordinates"), truth, patient) > 90


def test_where_the_centres_mislead_the_bodies_are_followed(patient: Volume) -> None:
    wide = patient.geometry.cropped((0, 0, 0), (84, 50, 64))  # 156 mm of air on one side
    data = torch.full(wide.shape, -1024.0)
    data[..., :58] = patient.data
    far = replace(wide, origin=tuple(np.add(wide.origin, (0.0, 90.0, 0.0))))
    tried = align_globally(scans(patient, Volume(data, far)), "translation", True, nothing)
    truth = AffineTransform.translation((0.0, 90.0, 0.0))
    assert tried[0].name.startswith("bodies")
    assert error_mm(tried[0], truth, patient) < 18  # noise in the air counts as body now and then
    assert error_mm(next(c for c in tried if c.name == "centres"), truth, patient) > 50


def test_a_turn_of_20_degrees_and_a_shift_are_found_by_the_affine_fit(patient: Volume) -> None:
    moving, truth = turned(patient, 20.0, (25.0, -30.0, 20.0))
    tried = align_globally(scans(patient, moving), "affine", True, nothing)
    assert tried[0].name.startswith("affine")
    without = align_globally(scans(patient, moving), "translation", True, nothing)
    assert error_mm(without[0], truth, patient) > 45
    assert error_mm(tried[0], truth, patient) < 18  # at the corners; what is left is for the levels


def test_the_start_is_never_left_for_a_worse_one(patient: Volume) -> None:
    noise = Volume(1000 * torch.rand(patient.geometry.shape) - 500, patient.geometry)
    for moving in (noise, turned(noise, 30.0, (40.0, 0.0, 0.0))[0]):
        tried = align_globally(scans(patient, moving, 12.0), "affine", True, nothing)
        start = next(c for c in tried if c.name == "scanner coordinates")
        assert tried[0].dissimilarity <= start.dissimilarity
        assert tried[0] is start or tried[0].dissimilarity < 0.98 * start.dissimilarity


def test_a_given_start_is_only_refined(patient: Volume) -> None:
    moving, truth = turned(patient, 8.0, (10.0, 5.0, -5.0))
    tried = align_globally(scans(patient, moving), "affine", False, nothing)
    names = [candidate.name for candidate in tried]
    assert "initial transform" in names
    assert all(name.startswith(("initial", "affine")) for name in names)
    assert error_mm(next(c for c in tried if c.name == "initial transform"), truth, patient) > 25
    assert error_mm(tried[0], truth, patient) < 10
    alone = align_globally(scans(patient, moving), "translation", False, nothing)
    assert [candidate.name for candidate in alone] == ["initial transform"]


def test_a_caller_can_stop_between_candidates(patient: Volume) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align_globally(scans(patient, patient), "translation", True, stop)
