"""The command line: what it writes and prints, how it ends; mostly with a stand-in for the engine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
from pddnet import cli, config, registration
from pddnet.errors import InputError, InsufficientMemoryError, RegistrationCancelled
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.progress import Progress
from pddnet.terminal import Interruption, ProgressDisplay
from pddnet.uncertainty import Uncertainty
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, Sequential

Engine = Callable[..., object]


class Folder:
    """Two scans with label maps in files, and a field that takes one to the other."""

    def __init__(self, path: Path) -> None:
        rng = np.random.default_rng(0)
        self.path = path
        self.fixed = noise(rng, random_geometry(rng))
        self.moving = noise(rng, overlapping_geometry(rng, self.fixed.geometry))
        self.labels = patches(rng, self.moving.geometry, 3)
        self.field = random_field(rng, covering_geometry(self.fixed.geometry), mm=0.5)
        interop.write_volume(path / "fixed.nii.gz", self.fixed)
        interop.write_volume(path / "moving.nrrd", self.moving)
        interop.write_label_map(path / "organs.nii.gz", self.labels)
        interop.write_label_map(path / "bones.nrrd", self.labels)
        interop.write_label_map(path / "fixed-organs.mha", patches(rng, self.fixed.geometry, 3))
        interop.write_transform(path / "field.h5", self.field)
        self.files = self.names()

    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}

    def run(self, command: str, **options: object) -> int:
        """`pddnet command --option value ...`; values that name files of this folder become their paths."""
        arguments = [command]
        for name, value in options.items():
            flag = [] if name == "image" else [f"--{name.replace('_', '-')}"]
            values = value if isinstance(value, list) else [] if value is True else [value]
            arguments += [*flag, *(str(self.path / str(v)) if name in PATHS else str(v) for v in values)]
        return cli.main(arguments)

    def register(self, **options: object) -> int:
        return self.run(
            "register", **({"fixed": "fixed.nii.gz", "moving": "moving.nrrd", "out": "out"} | options)
        )


PATHS = {
    "fixed",
    "moving",
    "labels",
    "fixed_mask",
    "moving_mask",
    "initial_transform",
    "out",
    "image",
    "transform",
}
PATHS |= {"reference", "fixed_labels", "moving_labels", "warped_labels", "landmarks"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def engine(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """`register` returns the folder's field; the arguments it was called with."""
    called: dict[str, object] = {}

    def register(fixed: Volume, moving: Volume, **options: object) -> object:
        called.update(options, fixed=fixed, moving=moving)
        for fraction in (0.0, 0.5, 1.0):
            options["on_progress"](Progress(f"level {fraction}", fraction, f"stage {fraction}"))
        grid = folder.field.geometry
        spread = Volume(torch.ones(grid.shape), grid)
        return SimpleNamespace(
            displacement=folder.field,
            uncertainty=Uncertainty(spread, spread),
            seconds=1.0,
            stage_seconds={},
            peak_memory_mb=1.0,
            preset="generic",
            warnings=("the moving scan seems to lie upside down",),
            device="cpu",
        )

    monkeypatch.setattr(registration, "register", register)
    return called


def failing_engine(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def register(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(registration, "register", register)


def in_a_process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    command = [sys.executable, "-m", "pddnet", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, **options)


def test_register_writes_a_folder_and_says_where(
    folder: Folder, engine: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.register(labels=["organs.nii.gz"], inverse=True) == cli.OK
    written = {path.name for path in (folder.path / "out").iterdir()}
    assert {
        "transform.h5",
        "inverse-transform.h5",
        "warped.nii.gz",
        "warped-labels.nii.gz",
        "report.json",
    } <= written
    said = capsys.readouterr()
    assert f"results are in {folder.path / 'out'}" in said.out
    assert "warning: the moving scan seems to lie upside down" in said.out
    assert said.err.splitlines() == ["  0% stage 0.0", " 50% stage 0.5", "100% stage 1.0"]
    assert torch.equal(engine["fixed"].data, folder.fixed.data)
    assert torch.equal(engine["moving"].data, folder.moving.data)


def test_register_passes_on_what_it_was_asked_for(folder: Folder, engine: dict[str, object]) -> None:
    interop.write_transform(folder.path / "start.tfm", AffineTransform.translation((1, 2, 3)))
    options = {
        "fixed_mask": "fixed-organs.mha",
        "moving_mask": "organs.nii.gz",
        "initial_transform": "start.tfm",
    }
    more = {"weights": "x.pth", "no_global_stage": True, "device": "cpu", "max_memory": 4000}
    assert folder.register(**options, **more) == cli.OK
    assert isinstance(engine["fixed_mask"], LabelMap)
    assert torch.equal(engine["moving_mask"].data, folder.labels.data)
    npt.assert_allclose(engine["initial_transform"].matrix[:3, 3], (1, 2, 3))
    assert (engine["weights"], engine["global_stage"], engine["device"]) == ("x.pth", False, "cpu")
    assert engine["memory_limit_mb"] == 4000
    assert isinstance(engine["preset"], config.Preset)
    report = json.loads((folder.path / "out" / "report.json").read_text())
    assert report["inputs"].keys() == {"fixed", "moving", "fixed mask", "moving mask", "initial transform"}


def test_registration_may_start_from_the_centres(folder: Folder, engine: dict[str, object]) -> None:
    paths = {"--fixed": "fixed.nii.gz", "--moving": "moving.nrrd", "--out": "out"}
    arguments = [text for flag, name in paths.items() for text in (flag, str(folder.path / name))]
    assert cli.main(["register", *arguments, "--initial-transform", "centres"]) == cli.OK
    assert engine["initial_transform"] == "centres"


def test_register_leaves_to_the_engine_what_was_not_asked_for(
    folder: Folder, engine: dict[str, object]
) -> None:
    assert folder.register() == cli.OK
    unasked = ("fixed_mask", "moving_mask", "initial_transform", "weights", "global_stage", "memory_limit_mb")
    assert [engine[name] for name in unasked] == [None] * 6


def test_with_json_standard_output_is_one_document(
    folder: Folder, engine: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.register(json=True, labels=["organs.nii.gz", "bones.nrrd"]) == cli.OK
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed == json.loads((folder.path / "out" / "report.json").read_text())
    assert {"warped-organs.nii.gz", "warped-bones.nii.gz"} <= set(printed["files"])
    assert engine


@pytest.mark.parametrize("suffix", ["nii.gz", "mha"])
def test_warp_resamples_images_and_labels_as_simpleitk_does(suffix: str, folder: Folder) -> None:
    options = {"transform": "field.h5", "reference": "fixed.nii.gz"}
    assert folder.run("warp", image="moving.nrrd", out=f"a.{suffix}", **options) == cli.OK
    transform = sitk.ReadTransform(str(folder.path / "field.h5"))
    fixed = sitk.ReadImage(str(folder.path / "fixed.nii.gz"))
    moving = sitk.ReadImage(str(folder.path / "moving.nrrd"))
    expected = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, folder.moving.fill_value)
    found = sitk.ReadImage(str(folder.path / f"a.{suffix}"))
    npt.assert_allclose(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected), atol=1e-3)

    arguments = ["warp", folder.path / "organs.nii.gz", "--labels", "--out", folder.path / f"b.{suffix}"]
    arguments += ["--transform", folder.path / "field.h5", "--reference", folder.path / "fixed.nii.gz"]
    assert cli.main([str(a) for a in arguments]) == cli.OK
    labels = sitk.ReadImage(str(folder.path / "organs.nii.gz"))
    expected = sitk.Resample(labels, fixed, transform, sitk.sitkNearestNeighbor)
    found = sitk.ReadImage(str(folder.path / f"b.{suffix}"))
    npt.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))


def test_warp_without_a_reference_takes_the_grid_of_the_field(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.run("warp", image="moving.nrrd", transform="field.h5", out="a.nrrd") == cli.OK
    assert interop.read_volume(folder.path / "a.nrrd").geometry.is_close(folder.field.geometry)
    interop.write_transform(folder.path / "shift.tfm", AffineTransform.identity())
    assert folder.run("warp", image="moving.nrrd", transform="shift.tfm", out="b.nrrd") == cli.BAD_INPUT
    assert "has no grid of its own; name an image with --reference" in capsys.readouterr().err


def test_invert_tells_how_far_from_an_inverse_it_is(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"transform": "field.h5", "reference": "moving.nrrd"}
    assert folder.run("invert", out="inverse.h5", json=True, **options) == cli.OK
    residual = json.loads(capsys.readouterr().out)["residual_mm"]
    assert 0 <= residual["mean"] <= residual["max"] < 0.2
    inverse = interop.read_transform(folder.path / "inverse.h5")
    points = torch.from_numpy(inverse.geometry.to_lps(np.argwhere(np.ones(inverse.geometry.size))))
    missed = (folder.field.apply(inverse.apply(points)) - points).square().sum(-1).sqrt()
    assert float(missed.mean()) == pytest.approx(residual["mean"], abs=1e-4)
    assert folder.run("invert", out="inverse.nrrd", **options) == cli.OK
    assert "mm at most" in capsys.readouterr().out


def test_invert_undoes_linear_and_composite_transforms(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    shift = AffineTransform.translation((1.0, -2.0, 3.0))
    interop.write_transform(folder.path / "shift.tfm", shift)
    interop.write_transform(folder.path / "both.h5", Sequential((shift, shift)))
    assert folder.run("invert", transform="shift.tfm", reference="moving.nrrd", out="back.tfm") == cli.OK
    npt.assert_allclose(interop.read_transform(folder.path / "back.tfm").matrix[:3, 3], (-1, 2, -3))
    options = {"transform": "both.h5", "reference": "moving.nrrd", "out": "back.h5"}
    assert folder.run("invert", **options) == cli.BAD_INPUT
    assert "--fixed" in capsys.readouterr().err
    assert folder.run("invert", fixed="fixed.nii.gz", **options) == cli.OK
    back = interop.read_transform(folder.path / "back.h5")
    npt.assert_allclose(back.vectors, torch.tensor([-2.0, 4.0, -6.0]).expand(back.vectors.shape), atol=1e-3)


def test_evaluate_judges_what_warp_writes(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    truth = folder.field.warp(folder.labels, folder.fixed.geometry)
    interop.write_label_map(folder.path / "truth.nii.gz", truth)
    (folder.path / "points.csv").write_text("fx,fy,fz,mx,my,mz\n0,0,0,3,4,0\n")
    options = {"fixed_labels": "truth.nii.gz", "moving_labels": "organs.nii.gz", "transform": "field.h5"}
    assert folder.run("evaluate", json=True, landmarks="points.csv", **options) == cli.OK
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [report["labels"][n]["after"]["dice"] for n in ("1", "2")] == [1.0, 1.0]
    assert report["labels"]["1"]["before"]["dice"] < 0.9
    assert report["landmarks_mm"]["before"] == [5.0]
    assert report["field"]["folding_fraction"] >= 0
    assert folder.run("evaluate", **options) == cli.OK
    assert "-> 1.000" in capsys.readouterr().out


def test_info_lists_versions_devices_presets_and_memory(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", "--json"]) == cli.OK
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["torch"] == torch.__version__
    assert "cpu" in report["devices"]
    assert list(report["presets"]) == config.available_presets()
    assert report["memory_mb"]["available"] > 1
    assert folder.run("info", fixed="fixed.nii.gz", moving="moving.nrrd") == cli.OK
    assert "preset generic needs about" in capsys.readouterr().out
    assert folder.run("info", fixed="fixed.nii.gz") == cli.BAD_INPUT
    assert "give --fixed and --moving" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("moving is odd; make it even"), 2, "moving is odd; make it even"),
        (InsufficientMemoryError("needs 9 GB; choose fast"), 3, "needs 9 GB; choose fast"),
        (MemoryError(), 3, "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GB"), 3, "CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 3, "can't allocate memory"),
        (RegistrationCancelled("stop"), 130, "cancelled; nothing was written"),
        (KeyboardInterrupt(), 130, "cancelled; nothing was written"),
        (OSError("disk is full"), 1, "disk is full"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "unexpected ZeroDivisionError: division by zero; run it again with",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_failure_is_one_sentence_with_its_exit_code(
    error: BaseException,
    code: int,
    said: str,
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing_engine(monkeypatch, error)
    assert folder.register() == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("pddnet register: ")
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert folder.names() == folder.files


def test_a_traceback_is_for_those_who_debug(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_engine(monkeypatch, ValueError("odd"))
    assert folder.register(debug=True) == cli.UNEXPECTED
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_asking_to_stop_ends_the_engine_and_leaves_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def register(*_: object, **options: object) -> object:
        assert not options["cancelled"]()
        signal.raise_signal(signal.SIGINT)
        assert options["cancelled"]()
        raise RegistrationCancelled("as asked")

    monkeypatch.setattr(registration, "register", register)
    before = signal.getsignal(signal.SIGINT)
    assert folder.register() == cli.CANCELLED
    assert folder.names() == folder.files
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("engine")
def test_asking_to_stop_while_results_are_written_leaves_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = interop.write_transform

    def write_and_stop(path: Path, transform: DisplacementField) -> None:
        write(path, transform)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(interop, "write_transform", write_and_stop)
    assert folder.register() == cli.CANCELLED
    assert folder.names() == folder.files


def signalled_twice(interruption: Interruption) -> None:
    with interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested()
        signal.raise_signal(signal.SIGINT)


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt):
        signalled_twice(Interruption())


def test_work_that_never_asks_is_interrupted_by_the_first_signal(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, volume: object) -> None:
        raise AssertionError(f"{path} written although {volume} was interrupted")

    read = interop.read_volume

    def read_and_stop(path: Path) -> Volume:
        signal.raise_signal(signal.SIGINT)
        return read(path)

    monkeypatch.setattr(interop, "read_volume", read_and_stop)
    monkeypatch.setattr(interop, "write_volume", write)
    assert folder.run("warp", image="moving.nrrd", transform="field.h5", out="a.nrrd") == cli.CANCELLED


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at(fraction: float, message: str) -> Progress:
    return Progress("level 1", fraction, message)


def test_on_a_terminal_progress_is_one_line_drawn_again() -> None:
    stream = Terminal()
    display = ProgressDisplay(stream)
    for fraction, stage in ((0.0, "a long stage"), (0.5, "short"), (0.5, "short"), (1.0, "short")):
        display(at(fraction, stage))
    display.close()
    drawn = stream.getvalue().split("\r")[1:]
    assert len(drawn) == 3
    assert len(drawn[1]) == len(drawn[0])  # what was longer is painted over
    assert drawn[1].startswith("[###############...............]  50% short")
    assert drawn[2].endswith("\n")


def test_elsewhere_progress_is_a_line_for_each_stage() -> None:
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    for fraction, stage in ((0.0, "one"), (0.2, "one"), (0.5, "two"), (1.0, "two")):
        display(at(fraction, stage))
    display.close()
    assert stream.getvalue() == "  0% one\n 50% two\n"


@pytest.mark.parametrize(
    "arguments", [[], ["register"], ["nonsense"], ["register", "--fixed", "a"], ["warp", "--labels"]]
)
def test_a_command_line_that_cannot_be_understood_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == cli.BAD_INPUT
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    ["register", "warp", "invert", "evaluate", "info", "demo", "train", "benchmark", "dataset synthetic"],
)
def test_every_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    assert "--json" in text
    assert "--debug" in text


def test_as_a_program_a_broken_file_gives_one_sentence_and_nothing_of_what_itk_prints(folder: Folder) -> None:
    broken = folder.path / "broken.mha"
    broken.write_bytes((folder.path / "fixed-organs.mha").read_bytes()[:-20])
    done = in_a_process(
        "warp", broken, "--transform", folder.path / "field.h5", "--out", folder.path / "a.nrrd"
    )
    assert done.returncode == cli.BAD_INPUT
    assert done.stderr.startswith(f"pddnet warp: {broken} is truncated")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    loud = in_a_process(
        "warp", broken, "--transform", folder.path / "field.h5", "--out", folder.path / "a.nrrd", "--debug"
    )
    assert "Traceback" in loud.stderr
    assert "MetaImage" in loud.stderr  # the negative control: ITK does print something


def test_as_a_program_it_says_its_version() -> None:
    done = in_a_process("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pddnet 0.")


def write_big_scan(path: Path) -> Path:
    """A scan that takes the engine a while."""
    coarse = torch.rand((1, 1, 12, 12, 12))
    smooth = torch.nn.functional.interpolate(coarse, (112, 112, 112), mode="trilinear")[0, 0]
    interop.write_volume(path, Volume(smooth, ImageGeometry((112,) * 3, (2.0,) * 3)))
    return path


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_as_a_program_it_ends_soon_after_sigterm_and_leaves_nothing(folder: Folder) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    big = write_big_scan(folder.path / "big.nrrd")
    options = ["--fixed", big, "--moving", big, "--out", folder.path / "out"]
    command = [sys.executable, "-m", "pddnet", "register", *map(str, options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    assert process.stderr is not None
    first = process.stderr.readline()  # it is at work
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    out, rest = process.communicate(timeout=60)
    assert process.returncode == cli.CANCELLED, first + rest
    assert time.monotonic() - started < 10
    assert rest.splitlines()[-1] == "pddnet register: cancelled; nothing was written"
    assert out == ""
    assert folder.names() == folder.files | {"big.nrrd"}
