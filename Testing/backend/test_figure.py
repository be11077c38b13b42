"""The picture of a registration: right on the left, millimetres square, on scans that lie any way in space."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.awkward import noise, patches, random_geometry
from pddnet.figure import registration_figure
from pddnet.figure.drawing import _checkerboard, _grey
from pddnet.figure.plane import Plane, moving_plane, shown_point
from pddnet.geometry import ImageGeometry
from pddnet.metrics import jacobian_determinant
from pddnet.points import slabs
from pddnet.synthetic import synthetic_deformation
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField

matplotlib_image = pytest.importorskip("matplotlib.image")


def ramp(geometry: ImageGeometry, axis: int) -> Volume:
    """A volume whose value is the coordinate (0 x, 1 y, 2 z) of each voxel, mm LPS."""
    return Volume(torch.cat([points[..., axis] for _, points in slabs(geometry)]), geometry)


def registration(seed: int = 0) -> dict[str, object]:
    """A fixed and a moving grid of different shape and orientation, and something of everything else."""
    rng = np.random.default_rng(seed)
    fixed, other = random_geometry(rng, 14, 24), random_geometry(rng, 14, 24)
    other = replace(other, origin=tuple(np.array(other.origin) + fixed.centre - other.centre))
    displacement = synthetic_deformation(fixed, seed, magnitude_mm=1.5, smoothness_mm=12.0)
    moving = noise(rng, other)
    return {
        "fixed": noise(rng, fixed),
        "moving": moving,
        "warped": displacement.warp(moving),
        "displacement": displacement,
        "jacobian": jacobian_determinant(displacement),
        "uncertainty_mm": noise(rng, fixed.coarsened((2, 2, 2))),
        "fixed_labels": patches(rng, fixed),
        "warped_labels": patches(rng, fixed),
    }


def pure_red(path: Path) -> int:
    pixels = matplotlib_image.imread(path)
    return int(((pixels[..., 0] > 0.99) & (pixels[..., 1:3].max(-1) < 0.01)).sum())


@pytest.mark.parametrize("across", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_shows_the_place_it_says(oblique_geometry: ImageGeometry, across: int, axis: int) -> None:
    plane = Plane.through(oblique_geometry, oblique_geometry.centre + 1.0, across)
    covered = plane.covers(oblique_geometry.cropped((1, 1, 1), [n - 2 for n in oblique_geometry.size]))
    assert covered.any()
    shown = plane.image(ramp(oblique_geometry, axis))[covered]
    expected = plane.points()[..., axis].numpy()[covered]
    np.testing.assert_allclose(shown, expected, atol=1e-3)
    across_here = plane.points()[..., across].numpy()
    np.testing.assert_allclose(across_here, oblique_geometry.centre[across] + 1.0, atol=1e-6)


def test_the_patients_right_is_on_the_left_and_the_head_on_top(oblique_geometry: ImageGeometry) -> None:
    coronal, axial = (Plane.through(oblique_geometry, oblique_geometry.centre, across) for across in (1, 2))
    for plane in (coronal, axial):
        left, right, *_ = plane.extent
        assert left < right  # LPS: x grows towards the patient's left
        assert (np.diff(plane.points()[0, :, 0].numpy()) > 0).all()
    _, _, bottom, top = coronal.extent
    assert bottom < top
    assert coronal.origin == "lower"
    _, _, bottom, top = axial.extent
    assert bottom > top  # the back is at the bottom
    assert axial.origin == "upper"


def test_a_slice_shows_all_of_the_scan_with_square_pixels(oblique_geometry: ImageGeometry) -> None:
    corners = oblique_geometry.corners()
    plane = Plane.through(oblique_geometry, oblique_geometry.centre, 1)
    left, right, bottom, top = plane.extent
    assert left <= corners[:, 0].min()
    assert right >= corners[:, 0].max()
    assert bottom <= corners[:, 2].min()
    assert top >= corners[:, 2].max()
    rows, columns, _ = plane.points().shape
    assert (right - left) / columns == pytest.approx((top - bottom) / rows)


def test_huge_scans_are_drawn_with_a_bounded_number_of_pixels() -> None:
    plane = Plane.through(ImageGeometry((2000, 900, 1500), (0.3, 0.3, 0.3)), np.zeros(3), 1)
    assert max(plane.geometry.size) <= 481


def test_labels_are_not_mixed_and_end_at_the_border(oblique_geometry: ImageGeometry) -> None:
    labels = LabelMap(torch.full(oblique_geometry.shape, 7), oblique_geometry)
    plane = Plane.through(oblique_geometry, oblique_geometry.centre, 2)
    assert np.array_equal(plane.labels(labels) == 7, plane.covers(oblique_geometry))
    assert set(np.unique(plane.labels(labels))) == {0, 7}


def test_the_slices_go_where_the_labels_are(oblique_geometry: ImageGeometry) -> None:
    grid = replace(oblique_geometry, size=(60, 50, 70))
    data = torch.zeros(grid.shape)
    data[50:60, 10:16, 20:30] = 1
    data[50:60, 10:16, 30:40] = 2
    middle = grid.to_lps((29.5, 12.5, 54.5))
    point = shown_point(ramp(grid, 0), LabelMap(data, grid))
    assert np.abs(point - middle)[1:].max() < 8
    assert np.array_equal(shown_point(ramp(grid, 0), None), grid.centre)


def test_the_moving_slice_goes_where_the_fixed_one_is_mapped_to() -> None:
    grid = ImageGeometry((20, 20, 20), (2.0, 2.0, 2.0))
    far = replace(grid, origin=(100.0, 50.0, -30.0))
    shift = DisplacementField(torch.tensor([100.0, 53.0, -30.0]).expand(*grid.shape, 3), grid)
    plane = moving_plane(Plane.through(grid, grid.centre, 1), ramp(far, 0), shift)
    assert plane.geometry.centre[1] == pytest.approx(grid.centre[1] + 53.0)


def test_ct_is_seen_through_a_soft_tissue_window_and_other_scans_through_their_own() -> None:
    grid = ImageGeometry((20, 20, 20))
    values = torch.linspace(-1000, 900, 8000).view(grid.shape)
    ct, mr = _grey(Volume(values, grid)), _grey(Volume(values + 1000, grid))
    assert (ct.low, ct.high) == (-160.0, 240.0)
    assert mr.low == pytest.approx(19, abs=1)
    assert mr.high == pytest.approx(1881, abs=1)


def test_a_checkerboard_takes_both_pictures_in_turn() -> None:
    board = _checkerboard(np.zeros((16, 16), np.float32), np.ones((16, 16), np.float32))
    assert board[0, 0] == board[2, 2] == board[1, 1] == 0
    assert board[0, 2] == board[2, 0] == 1
    assert board.mean() == 0.5


@pytest.mark.parametrize("seed", range(2))
def test_any_registration_can_be_drawn(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "figure.png"
    registration_figure(**registration(seed), path=path)
    assert min(matplotlib_image.imread(path).shape[:2]) > 500


def test_labels_are_optional(tmp_path: Path) -> None:
    parts = registration()
    del parts["fixed_labels"], parts["warped_labels"]
    registration_figure(**parts, path=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_folds_are_drawn_in_red_and_only_folds(tmp_path: Path) -> None:
    parts = registration()
    flat, folded = tmp_path / "flat.png", tmp_path / "folded.png"
    registration_figure(**parts, path=flat)
    determinant = parts["jacobian"]
    assert isinstance(determinant, Volume)
    parts["jacobian"] = Volume(determinant.data - 0.95, determinant.geometry)
    registration_figure(**parts, path=folded)
    assert pure_red(flat) == 0
    assert pure_red(folded) > 100


def test_drawing_leaves_no_global_state_behind(tmp_path: Path) -> None:
    script = (
        "import sys, torch\n"
        "from pddnet.figure import registration_figure\n"
        "from pddnet.geometry import ImageGeometry\n"
        "from pddnet.volume import Volume\n"
        "from pddnet.warp import DisplacementField\n"
        "assert 'matplotlib' not in sys.modules\n"
        "grid = ImageGeometry((9, 8, 7), (2.0, 3.0, 4.0))\n"
        "image = Volume(torch.rand(grid.shape), grid)\n"
        "still = DisplacementField(torch.zeros(*grid.shape, 3), grid)\n"
        "registration_figure(image, image, image, still, image, image, sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    search = f"import sys; sys.path[:0] = {sys.path!r}\n"
    subprocess.run([sys.executable, "-c", search + script, str(tmp_path / "figure.png")], check=True)
    assert (tmp_path / "figure.png").is_file()


def test_without_matplotlib_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "pddnet\[demo\]"'):
        registration_figure(**registration(), path=tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()
