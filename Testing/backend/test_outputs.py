"""The folder of results: complete, on the right grids, in strict JSON; or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.testing as npt
import pytest
import SimpleITK as sitk
import torch

from backend.awkward import (
    covering_geometry,
    noise,
    overlapping_geometry,
    patches,
    random_field,
    random_geometry,
)
from pddnet import metrics, outputs, warp
from pddnet.errors import InputError, RegistrationCancelled
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.interop.files import replacing_folder
from pddnet.inversion import inverse_grid, invert
from pddnet.points import plane_slabs
from pddnet.strict_json import to_json
from pddnet.uncertainty import Uncertainty
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField

ALWAYS = {
    "transform.h5",
    "warped.nii.gz",
    "uncertainty.nii.gz",
    "entropy.nii.gz",
    "jacobian.nii.gz",
    "report.json",
}


class Case:
    """Two scans, a label map, and a made-up result of registering them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.fixed = noise(rng, random_geometry(rng))
        self.moving = noise(rng, overlapping_geometry(rng, self.fixed.geometry))
        self.labels = patches(rng, self.moving.geometry)
        grid = covering_geometry(self.fixed.geometry)
        self.result = SimpleNamespace(
            displacement=random_field(rng, grid, mm=0.3),
            uncertainty=Uncertainty(std_mm=noise(rng, grid), entropy=Volume(noise(rng, grid).data * 5, grid)),
            seconds=1.5,
            stage_seconds={"features": 0.5, "levels": 1.0},
            peak_memory_mb=123.0,
            preset="generic",
            device="cpu",
            warnings=("the moving scan seems to lie upside down",),
        )

    def write(self, out: Path, **options: object) -> dict[str, object]:
        return outputs.write_result(self.result, self.fixed, self.moving, out, **options)


@pytest.fixture
def case() -> Case:
    return Case()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def sizes(geometry: ImageGeometry) -> list[int]:
    return list(geometry.size)


def test_the_folder_holds_every_file_on_the_fixed_grid(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path / "out", labels={"organs": case.labels})
    assert names(tmp_path / "out") == ALWAYS | {"warped-labels.nii.gz"}
    assert names(tmp_path) == {"out"}
    for path in (tmp_path / "out").glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        assert interop.from_sitk(image).geometry.is_close(case.fixed.geometry)
        labels = path.name == "warped-labels.nii.gz"
        assert image.GetPixelIDTypeAsString() == ("8-bit unsigned integer" if labels else "32-bit float")


def test_the_images_are_what_the_transform_in_the_folder_makes_of_the_scans(
    case: Case, tmp_path: Path
) -> None:
    case.write(tmp_path / "out", labels={"organs": case.labels})
    transform = sitk.ReadTransform(str(tmp_path / "out" / "transform.h5"))
    for name, source, how, fill in (
        ("warped", case.moving, sitk.sitkLinear, case.moving.fill_value),
        ("warped-labels", case.labels, sitk.sitkNearestNeighbor, 0.0),
    ):
        theirs = sitk.Resample(interop.to_sitk(source), interop.to_sitk(case.fixed), transform, how, fill)
        ours = sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
        npt.assert_allclose(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs), atol=1e-3)


def test_uncertainty_and_jacobian_are_those_of_the_result_at_each_fixed_voxel(
    case: Case, tmp_path: Path
) -> None:
    case.write(tmp_path / "out")
    written = {
        n: interop.read_volume(tmp_path / "out" / f"{n}.nii.gz").data for n in ("uncertainty", "jacobian")
    }
    std = case.result.uncertainty.std_mm
    expected = sitk.Resample(
        interop.to_sitk(std), interop.to_sitk(case.fixed), sitk.Transform(), sitk.sitkLinear
    )
    npt.assert_allclose(written["uncertainty"], sitk.GetArrayFromImage(expected), atol=1e-4)
    determinant = metrics.jacobian_determinant(case.result.displacement, case.fixed.geometry)
    npt.assert_allclose(written["jacobian"], determinant.data, atol=1e-6)


def test_several_label_maps_keep_their_names(case: Case, tmp_path: Path) -> None:
    bones = LabelMap(torch.ones(case.moving.geometry.shape), case.moving.geometry)
    case.write(tmp_path / "out", labels={"organs": case.labels, "bones": bones})
    assert names(tmp_path / "out") == ALWAYS | {"warped-organs.nii.gz", "warped-bones.nii.gz"}


def test_the_report_says_how_it_went(case: Case, tmp_path: Path) -> None:
    scan = tmp_path / "fixed.nii.gz"
    interop.write_volume(scan, case.fixed)
    returned = case.write(tmp_path / "out", inputs={"fixed": scan})
    report = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=pytest.fail)
    assert report == returned
    assert {"seconds", "stage_seconds", "peak_memory_mb", "preset", "device", "versions"} <= report.keys()
    assert report["warnings"] == ["the moving scan seems to lie upside down"]
    assert report["inputs"]["fixed"]["sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert report["fixed"]["size"] == sizes(case.fixed.geometry)
    assert report["versions"].keys() == {"pddnet", "python", "torch", "numpy", "SimpleITK"}
    assert set(report["files"]) == names(tmp_path / "out")
    quality = metrics.FieldQuality.of(
        metrics.jacobian_determinant(case.result.displacement, case.fixed.geometry)
    )
    assert report["folding_percent"] == pytest.approx(100 * quality.folding_fraction)
    assert report["jacobian_std"] == pytest.approx(quality.jacobian_std)
    assert report["log_jacobian_std"] == pytest.approx(quality.log_jacobian_std)
    lengths = case.result.displacement.vectors.norm(dim=-1)
    assert report["displacement_mm"]["max"] == pytest.approx(float(lengths.max()))


def test_a_folder_of_dicom_files_has_a_hash_too(case: Case, tmp_path: Path) -> None:
    series = tmp_path / "ct"
    series.mkdir()
    (series / "b").write_bytes(b"2")
    (series / "a").write_bytes(b"1")
    report = case.write(tmp_path / "out", inputs={"fixed": series})
    assert report["inputs"]["fixed"]["sha256"] == hashlib.sha256(b"12").hexdigest()


def test_numbers_that_json_lacks_become_null() -> None:
    values = {"a": float("inf"), "b": [float("nan"), 1.0], "c": {"d": (float("-inf"), "x")}}
    assert to_json(values) == {"a": None, "b": [None, 1.0], "c": {"d": [None, "x"]}}


def test_the_inverse_leads_from_moving_to_fixed_points(case: Case, tmp_path: Path) -> None:
    grid, shift = case.result.displacement.geometry, torch.tensor([3.0, -2.0, 1.0])
    case.result.displacement = DisplacementField(shift.expand((*grid.shape, 3)), grid)
    report = case.write(tmp_path / "out", inverse=True)
    inverse = interop.read_transform(tmp_path / "out" / "inverse-transform.h5")
    npt.assert_allclose(inverse.vectors, (-shift).expand(inverse.vectors.shape), atol=1e-4)
    corners = inverse.geometry.to_index(case.moving.geometry.corners())
    assert (corners > -0.5).all()  # the moving field of view lies inside
    assert (corners < np.subtract(inverse.geometry.size, 0.5)).all()
    assert report["inverse_residual_mm"] == pytest.approx({"mean": 0, "max": 0}, abs=1e-4)


def test_the_inverse_is_as_fine_as_the_field_and_not_finer_than_the_scan() -> None:
    field = DisplacementField(torch.zeros((3, 3, 3, 3)), ImageGeometry((3, 3, 3), (4.0, 4.0, 4.0)))
    grid = inverse_grid(field, ImageGeometry((9, 8, 6), (1.5, 2.0, 6.0)))
    assert grid.spacing == (3.0, 4.0, 6.0)
    assert grid.size == (7, 6, 8)


def test_a_later_run_replaces_the_earlier_and_leaves_other_files_alone(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    case.write(out, labels={"organs": case.labels}, inverse=True)
    (out / "notes.txt").write_text("mine")
    first = (out / "warped.nii.gz").read_bytes()
    case.result.displacement = random_field(np.random.default_rng(1), case.result.displacement.geometry)
    case.write(out)
    assert names(out) == ALWAYS | {"notes.txt"}  # what the earlier run wrote and this one did not is gone
    assert (out / "warped.nii.gz").read_bytes() != first


def test_a_report_cannot_make_files_elsewhere_disappear(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    (out / "report.json").write_text(
        json.dumps({"files": ["../precious.txt", str(tmp_path / "precious.txt")]})
    )
    case.write(out)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("report", ["not json", "[]", '{"files": 3}', "{}"])
def test_a_report_of_another_kind_is_replaced(report: str, case: Case, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report)
    case.write(tmp_path)
    assert names(tmp_path) == ALWAYS


def failing_after(count: int, error: BaseException) -> Iterator[None]:
    for _ in range(count):
        yield
    raise error


@pytest.mark.parametrize(
    "error", [OSError("disk full"), KeyboardInterrupt()], ids=["disk full", "interrupted"]
)
@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failure_while_writing_changes_nothing(
    error: BaseException,
    count: int,
    earlier: bool,
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a" / "b"
    if earlier:
        case.write(out)
    before = {path: path.read_bytes() for path in out.glob("*")}
    steps, write = failing_after(count, error), interop.write_volume

    def failing(path: Path, volume: Volume) -> None:
        next(steps)
        write(path, volume)

    monkeypatch.setattr(interop, "write_volume", failing)
    with pytest.raises(type(error)):
        case.write(out)
    assert {path: path.read_bytes() for path in out.glob("*")} == before
    assert names(tmp_path) == ({"a"} if earlier else set())


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_failure_while_moving_brings_the_old_files_back(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    old = {"a": "old a", "b": "old b", "gone": "old gone"}
    for name, text in old.items():
        (out / name).write_text(text)
    replace, calls = os.replace, []

    def failing(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == fails_at:
            raise OSError("the network is down")
        replace(source, target)

    def write() -> None:
        with replacing_folder(out, obsolete=["gone"]) as folder:
            for name in ("a", "b", "c"):
                (folder / name).write_text("new")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="network"):
        write()
    assert {path.name: path.read_text() for path in out.iterdir()} == old
    assert names(tmp_path) == {"out"}


def test_a_cancelled_run_writes_nothing(case: Case, tmp_path: Path) -> None:
    answers = iter([False, False, True])
    with pytest.raises(RegistrationCancelled):
        case.write(tmp_path / "out", cancelled=lambda: next(answers))
    assert names(tmp_path) == set()


def test_an_output_that_is_or_lies_in_a_file_is_refused(case: Case, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"output folder .*file is a file"):
        case.write(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot be written.*is a file"):
        case.write(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == {"file"}


def test_the_inverse_covers_all_that_the_fixed_scan_is_taken_to() -> None:
    fixed, moving = ImageGeometry((9, 8, 7), (4.0, 4.0, 4.0)), ImageGeometry((5, 6, 4), (4.0, 4.0, 4.0))
    vectors = torch.zeros((*fixed.shape, 3)) + torch.tensor([-13.0, 6.0, 30.0])
    field = DisplacementField(vectors, fixed, fixed)
    inverse, _ = invert(field, inverse_grid(field, moving))
    back = sitk.DisplacementFieldTransform(sitk.Cast(interop.to_sitk(inverse), sitk.sitkVectorFloat64))
    for corner in fixed.corners():
        found = field.apply(torch.as_tensor(corner))
        np.testing.assert_allclose(back.TransformPoint(found.tolist()), corner, atol=0.01)


@pytest.mark.parametrize("failure", [InputError("no"), RegistrationCancelled("stop")])
def test_what_others_put_into_a_new_parent_stays_and_the_failure_is_told(
    tmp_path: Path, failure: Exception
) -> None:
    def fail() -> None:
        with replacing_folder(tmp_path / "new" / "mine"):
            (tmp_path / "new" / "other").mkdir()
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other"]


def test_stopping_need_not_wait_for_a_whole_image(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes: list[object] = []
    look = warp.within

    def counted(index: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        planes.append(index)
        return look(index, shape)

    monkeypatch.setattr(warp, "plane_slabs", lambda shape: plane_slabs(shape, 1))
    monkeypatch.setattr(warp, "within", counted)
    with pytest.raises(RegistrationCancelled):
        case.write(tmp_path / "out", cancelled=lambda: len(planes) >= 3)
    assert 3 <= len(planes) < case.fixed.geometry.shape[0]
    assert names(tmp_path) == set()


@pytest.mark.parametrize("large", [False, True])
def test_of_large_images_one_is_written_before_the_next_is_made(
    large: bool, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    making, write, make = threading.Event(), interop.write_volume, outputs.sampled_on

    def slowly(path: Path, volume: Volume) -> None:
        if not large and path.name == "warped.nii.gz":
            assert making.wait(30)  # for ever if nothing were made meanwhile
        write(path, volume)
        happened.append(path.name)

    def made(*given: object) -> Volume:
        making.set()
        happened.append("made")
        return make(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "_LARGE_VOXELS", 0 if large else 10**9)
    monkeypatch.setattr(interop, "write_volume", slowly)
    monkeypatch.setattr(outputs, "sampled_on", made)
    case.write(tmp_path / "out")
    made_before = happened[: happened.index("warped.nii.gz")].count("made")
    assert made_before == (0 if large else 1)
    assert names(tmp_path / "out") == ALWAYS
