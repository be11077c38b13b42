"""Bad input, at the library and on the command line: a sentence that names it and a remedy, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import pddnet
from pddnet import cli
from pddnet.errors import InputError, InsufficientMemoryError
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField

GRID = ImageGeometry((20, 18, 16), (2.0, 2.0, 2.5))
FAR_AWAY = replace(GRID, origin=(5000.0, 0.0, 0.0))
GOOD = Volume(torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0)), GRID)
MASK = LabelMap(torch.ones(GRID.shape), GRID)


def with_voxel(value: float) -> Volume:
    data = GOOD.data.clone()
    data[3, 4, 5] = value
    return Volume(data, GRID)


def thin(axis: int) -> Volume:
    size = [20, 18, 16]
    size[axis] = 1
    geometry = ImageGeometry((size[0], size[1], size[2]), GRID.spacing)
    return Volume(torch.rand(geometry.shape), geometry)


BAD_SCANS = {
    "NaN": (with_voxel(float("nan")), r"1 voxels that are NaN or infinite; replace"),
    "infinite": (with_voxel(float("inf")), r"NaN or infinite; replace"),
    "constant": (Volume(torch.full(GRID.shape, 7.0), GRID), r"value 7 everywhere.*check the file"),
    "empty": (Volume(torch.zeros(GRID.shape), GRID), r"value 0 everywhere.*check the file"),
    "one voxel thick": (thin(2), r"at least 2 along each axis: load the whole series"),
    "one voxel wide": (thin(0), r"at least 2 along each axis"),
    "elsewhere": (Volume(GOOD.data, FAR_AWAY), r"do not overlap.*5000 mm apart.*initial transform"),
}


@pytest.mark.parametrize("role", ["fixed", "moving"])
@pytest.mark.parametrize("kind", BAD_SCANS)
def test_a_scan_that_cannot_be_registered_is_refused(kind: str, role: str) -> None:
    scan, message = BAD_SCANS[kind]
    scans = {"fixed": GOOD, "moving": GOOD, role: scan}
    with pytest.raises(InputError, match=message) as caught:
        pddnet.register(scans["fixed"], scans["moving"], preset="fast", device="cpu")
    assert role in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "nonsense"}, r"preset 'nonsense' is not known; choose one of .*generic"),
        ({"preset": "missing.toml"}, r"preset 'missing.toml' is not known"),
        ({"device": "quantum"}, r"device 'quantum' is not available; choose auto or one of cpu"),
        ({"fixed_mask": LabelMap(torch.zeros(GRID.shape), GRID)}, r"fixed mask covers nothing"),
        ({"moving_mask": LabelMap(torch.zeros(GRID.shape), GRID)}, r"moving mask covers nothing"),
        (
            {"fixed_mask": LabelMap(torch.ones(GRID.shape), FAR_AWAY)},
            r"fixed mask .*resample it onto the scan",
        ),
        (
            {"moving_mask": LabelMap(torch.ones(2, 2, 2), ImageGeometry((2, 2, 2)))},
            r"moving mask .*2 x 2 x 2",
        ),
        ({"initial_transform": "guess"}, r"initial_transform is 'guess'.*centres"),
        ({"initial_transform": AffineTransform.translation((9e3, 0, 0))}, r"do not overlap"),
        ({"weights": "x.pth"}, r"uses no network weights; leave them out"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_argument_that_cannot_be_used_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pddnet.register(GOOD, GOOD, **({"preset": "fast", "device": "cpu"} | options))


def test_more_memory_than_allowed_is_refused_before_any_work() -> None:
    told: list[object] = []
    with pytest.raises(
        InsufficientMemoryError, match=r"needs about \d+ MB.* the limit given is 1 MB; close other programs"
    ):
        pddnet.register(GOOD, GOOD, preset="fast", device="cpu", memory_limit_mb=1, on_progress=told.append)
    assert told == []


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_weights_that_are_no_checkpoint_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pth"):
        pddnet.register(GOOD, GOOD, preset="pdd-net-2019", device="cpu", weights=tmp_path / "x.pth")


def test_a_warped_scan_needs_no_registration_to_be_refused_in_2d_or_4d() -> None:
    for shape in ((18, 20), (2, 16, 18, 20)):
        with pytest.raises(InputError, match=r"3-D tensor .*choose one channel or time point"):
            Volume(torch.zeros(shape), GRID)


def write_array(path: Path, values: np.ndarray, vector: bool = False) -> None:
    image = sitk.GetImageFromArray(values, isVector=vector)
    sitk.WriteImage(image, str(path))


def write_singular(path: Path) -> None:
    interop.write_volume(path, GOOD)
    header, data = path.read_bytes().split(b"\n\n", 1)
    lines = [
        b"space directions: (2,0,0) (2,0,0) (0,0,2)" if b"directions" in n else n for n in header.split(b"\n")
    ]
    path.write_bytes(b"\n".join(lines) + b"\n\n" + data)


def write_cut(path: Path, keep: float) -> None:
    interop.write_volume(path, GOOD)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])


def write_corrupt(path: Path) -> None:
    interop.write_volume(path, GOOD)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)


def write_twice_compressed(path: Path) -> None:
    import gzip

    interop.write_volume(path, GOOD)
    path.write_bytes(gzip.compress(path.read_bytes()))


ONE = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.nii.gz": (lambda _: None, r"does not exist; check the spelling"),
    "empty.nii.gz": (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\); copy or export it again"),
    "empty.mha": (lambda path: path.write_bytes(b""), r"is empty"),
    "text.nii.gz": (lambda path: path.write_text("hello " * 99), r"truncated or damaged"),
    "text.nii": (lambda path: path.write_text("hello " * 99), r"not a NIfTI image"),
    "text.nrrd": (lambda path: path.write_text("hello " * 99), r"not an image"),
    "text.dat": (lambda path: path.write_text("hello " * 99), r"not an image; give a NIfTI"),
    "cut.nii.gz": (lambda path: write_cut(path, 0.5), r"is truncated.*copy or export it again"),
    "barely-cut.nii.gz": (lambda path: write_cut(path, 0.999), r"is truncated.*copy or export it again"),
    "cut.nrrd": (lambda path: write_cut(path, 0.5), r"truncated"),
    "cut.mha": (lambda path: write_cut(path, 0.5), r"truncated"),
    "corrupt.nii.gz": (write_corrupt, r"truncated or damaged"),
    "twice.nii.gz": (write_twice_compressed, r"compressed twice; unpack it once"),
    "flat.nrrd": (lambda path: write_array(path, ONE[0]), r"is 2-D.*folder of the whole series"),
    "film.nii.gz": (lambda path: write_array(path, np.stack([ONE] * 3), False), r"is 4-D.*one time point"),
    "film.nrrd": (lambda path: write_array(path, np.stack([ONE] * 3), False), r"is 4-D.*one time point"),
    "vector.nii.gz": (
        lambda path: write_array(path, np.stack([ONE] * 3, -1), True),
        r"3 components.*extract one",
    ),
    "colour.mha": (lambda path: write_array(path, np.ones((4, 5, 6, 3), np.uint8), True), r"3 components"),
    "complex.nii": (lambda path: write_array(path, ONE + 1j), r"complex voxels; take the magnitude"),
    "singular.nrrd": (write_singular, r"singular direction; correct the cosines"),
    "folder": (Path.mkdir, r"folder without a DICOM series"),
}


def write_uncompressed_nifti_cut(path: Path) -> None:
    sitk.WriteImage(interop.to_sitk(GOOD), str(path), False)
    path.write_bytes(path.read_bytes()[:-1])


BAD_FILES["cut.nii"] = (write_uncompressed_nifti_cut, r"is truncated: it holds \d+ of \d+ bytes")


class Case:
    """A folder with two good scans, and everything that is in it before a command runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        interop.write_volume(path / "good.nii.gz", GOOD)
        interop.write_label_map(path / "labels.nii.gz", MASK)
        interop.write_transform(path / "field.h5", DisplacementField(torch.zeros((16, 18, 20, 3)), GRID))

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.path.rglob("*") if path.is_file()}

    def refuses(
        self, capsys: pytest.CaptureFixture[str], *arguments: object, code: int = cli.BAD_INPUT
    ) -> str:
        """Run a command that must fail with `code`, one sentence, and no file changed; the sentence."""
        before, folders = self.files(), {path for path in self.path.rglob("*") if path.is_dir()}
        assert cli.main([str(argument) for argument in arguments]) == code
        said = capsys.readouterr()
        assert said.out == ""
        *progress, sentence = said.err.splitlines()
        assert not any("Traceback" in line for line in progress)
        assert self.files() == before
        assert {path for path in self.path.rglob("*") if path.is_dir()} == folders
        return sentence

    def registers(self, **changes: object) -> list[object]:
        """The arguments of `pddnet register`."""
        options = {"fixed": self.path / "good.nii.gz", "moving": self.path / "good.nii.gz"}
        options |= {"out": self.path / "out", "preset": "fast", "device": "cpu"} | changes
        return ["register", *(part for name, value in options.items() for part in (f"--{name}", value))]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_scan_is_refused_by_name(
    name: str, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    write, message = BAD_FILES[name]
    path = case.path / name
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        interop.read_volume(path)
    assert str(path) in str(caught.value)
    assert case.refuses(capsys, *case.registers(moving=path)) == f"pddnet register: {caught.value}"


@pytest.mark.parametrize("kind", BAD_SCANS)
def test_a_scan_that_cannot_be_registered_is_refused_on_the_command_line(
    kind: str, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, message = BAD_SCANS[kind]
    interop.write_volume(case.path / "bad.nrrd", scan)
    with pytest.raises(InputError, match=message) as caught:
        pddnet.register(GOOD, scan, preset="fast", device="cpu")
    assert (
        case.refuses(capsys, *case.registers(moving=case.path / "bad.nrrd"))
        == f"pddnet register: {caught.value}"
    )


def test_sheared_axes_are_refused_before_the_registration(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ((1.0, 0.3, 0.0), (0.0, 0.95, 0.0), (0.0, 0.0, 1.0))
    interop.write_volume(case.path / "bad.nrrd", Volume(GOOD.data, replace(GRID, direction=rows)))
    said = case.refuses(capsys, *case.registers(fixed=case.path / "bad.nrrd"))
    assert "bad.nrrd are not at right angles; resample it" in said


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("preset", "nonsense", "choose one of"),
        ("device", "quantum", "choose auto or one of cpu"),
        ("weights", "x.pth", "uses no network weights"),
        ("out", "good.nii.gz", "is a file; name another folder"),
        ("out", "good.nii.gz/out", "is a file; name a path inside a folder"),
        ("fixed-mask", "zeros.nii.gz", "fixed mask covers nothing"),
        ("moving-mask", "elsewhere.nii.gz", "moving mask"),
        ("fixed-mask", "fractions.nii.gz", "fractions.nii.gz: the label map holds the value 0.5"),
        ("labels", "fractions.nii.gz", "nearest-neighbour"),
        ("labels", "elsewhere.nii.gz", "lies outside the moving scan"),
        ("labels", "missing.nii.gz", "does not exist"),
        ("labels", "nan.nrrd", "the label map holds the value nan"),
        ("labels", "huge.nrrd", "labels go up to 2147483647"),
        ("initial-transform", "missing.h5", "does not exist"),
        ("initial-transform", "torn.h5", "cannot be read as an ITK transform"),
        ("initial-transform", "torn.tfm", "cannot be read as an ITK transform"),
        ("initial-transform", "good.nii.gz", "no displacement field"),
        ("initial-transform", "cut.nii.gz", "is truncated"),
        ("initial-transform", "", "is a folder; name a transform file"),
        ("initial-transform", "away.tfm", "do not overlap"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_is_written(
    name: str, value: str, message: str, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    interop.write_label_map(case.path / "zeros.nii.gz", LabelMap(torch.zeros(GRID.shape), GRID))
    interop.write_label_map(case.path / "elsewhere.nii.gz", LabelMap(MASK.data, FAR_AWAY))
    interop.write_volume(case.path / "fractions.nii.gz", Volume(MASK.data / 2, GRID))
    not_a_number = torch.where(torch.arange(20) == 7, torch.nan, MASK.data)
    interop.write_volume(case.path / "nan.nrrd", Volume(not_a_number, GRID))
    interop.write_volume(case.path / "huge.nrrd", Volume(MASK.data * 5e9, GRID))
    (case.path / "torn.h5").write_bytes((case.path / "field.h5").read_bytes()[:900])
    (case.path / "torn.tfm").write_text("nothing")
    write_cut(case.path / "cut.nii.gz", 0.7)
    interop.write_transform(case.path / "away.tfm", AffineTransform.translation((9e3, 0, 0)))
    changes = {name: value if name in ("preset", "device", "weights") else case.path / value}
    assert message in case.refuses(capsys, *case.registers(**changes))


def test_two_label_maps_of_one_name_are_refused(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    (case.path / "other").mkdir()
    interop.write_label_map(case.path / "other" / "labels.nrrd", MASK)
    both = ["--labels", case.path / "labels.nii.gz", case.path / "other" / "labels.nrrd"]
    assert "labels names files alike (labels, labels)" in case.refuses(capsys, *case.registers(), *both)


def test_too_little_memory_has_its_own_exit_code(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = case.registers(**{"max-memory": 1})
    said = case.refuses(capsys, *arguments, code=cli.NOT_ENOUGH_MEMORY)
    assert "MB of memory" in said
    assert "close other programs" in said


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "is a folder; name a file in it"),
        ("a.jpg", "ends with none of .nii.gz, .nii, .nrrd, .mha"),
        ("missing/a.nrrd", "missing does not exist; create it first"),
        ("good.nii.gz/a.nrrd", "good.nii.gz is a file; name a path inside a folder"),
    ],
)
def test_an_output_file_that_cannot_be_written_is_refused(
    out: str, message: str, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--transform", case.path / "field.h5", "--out", case.path / out]
    assert message in case.refuses(capsys, "warp", case.path / "good.nii.gz", *options)
    with pytest.raises(InputError) as caught:
        interop.write_volume(case.path / out, GOOD)
    assert message in str(caught.value)


def test_warping_fractions_as_labels_is_refused(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--transform", case.path / "field.h5", "--out", case.path / "a.nrrd", "--labels"]
    assert "labels are whole numbers" in case.refuses(capsys, "warp", case.path / "good.nii.gz", *options)


def test_label_maps_on_other_grids_are_refused_where_they_are_compared(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    interop.write_label_map(case.path / "elsewhere.nii.gz", LabelMap(MASK.data, FAR_AWAY))
    labels = [
        "--fixed-labels",
        case.path / "labels.nii.gz",
        "--warped-labels",
        case.path / "elsewhere.nii.gz",
    ]
    assert "different grids" in case.refuses(capsys, "evaluate", *labels)
    assert "nothing to measure" in case.refuses(capsys, "evaluate")


def test_the_good_files_are_registered(case: Case) -> None:
    # the negative control of this module: nothing but the input named in a test is what it is refused for
    masks = ["--fixed-mask", case.path / "labels.nii.gz", "--moving-mask", case.path / "labels.nii.gz"]
    options = [*masks, "--initial-transform", case.path / "field.h5", "--labels", case.path / "labels.nii.gz"]
    assert cli.main([str(a) for a in (*case.registers(), *options, "--inverse")]) == cli.OK
    warped = interop.read_volume(case.path / "out" / "warped.nii.gz")
    assert warped.geometry.is_close(GRID)
    assert float((warped.data - GOOD.data).abs().mean()) < 0.1
