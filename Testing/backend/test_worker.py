"""The worker as another program sees it: events, results, errors, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from backend.asking import (
    QUICK,
    Ran,
    ask,
    ended_within,
    environment,
    field_of,
    listened_to,
    organs,
    patient,
    save_labels,
    save_scan,
    start,
)
from pddnet import job
from pddnet.config import load_preset, overridden
from pddnet.errors import DeviceError, InputError, InsufficientMemoryError
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.metrics import dice, hd95, inverse_consistency_error, jacobian_determinant
from pddnet.published_weights import CheckpointError
from pddnet.registration import RegistrationResult, register
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, resample, sampled_on
from pddnet.worker import MissingPackageError, failure, main

POINTS = ((10.0, -5.0, 3.0), (0.0, 8.0, -12.0), (-14.0, 2.0, 6.0))
TILT = ((0.96, -0.28, 0.0), (0.28, 0.96, 0.0), (0.0, 0.0, 1.0))
SHEAR = ((1.0, 0.1, 0.0), (0.0, 0.995, 0.1), (0.0, 0.0, 0.995))


def tilted(scan: Volume | LabelMap, direction: tuple[tuple[float, ...], ...]) -> ImageGeometry:
    """The same voxels along other axes, about the same centre."""
    turned = replace(scan.geometry, direction=direction, spacing=(3.0, 2.8, 3.3))
    return replace(turned, origin=tuple(scan.geometry.centre - turned.centre + np.asarray(turned.origin)))


class Pair:
    """Two oblique scans, their organs, a worker's answer to a request for everything, and our own result."""

    def __init__(self, folder: Path, direction: tuple[tuple[float, ...], ...]) -> None:
        self.folder = folder
        a, b = patient(6), patient(5, (22, 24, 23))
        self.fixed = Volume(a.ct.data, tilted(a.ct, direction))
        self.fixed_labels = LabelMap(a.labels.data, self.fixed.geometry, a.labels.names)
        self.moving, self.labels = b.ct, b.labels
        coarse = self.labels.geometry.coarsened((2, 1, 1))
        self.other = LabelMap(torch.randint(0, 40_000, coarse.shape), coarse)
        layers = (
            save_labels(folder, "organs", self.labels),
            save_labels(folder, "other", self.other, np.uint16),
        )
        self.segmentation = replace(organs(layers[0], self.labels), layers=layers)
        fixed_organs = organs(save_labels(folder, "reference", self.fixed_labels), self.fixed_labels)
        renamed = tuple(replace(s, name=f" {s.name.upper()} ") for s in fixed_organs.segments)
        self.request = job.RegisterRequest(
            save_scan(folder, "fixed", self.fixed),
            save_scan(folder, "moving", self.moving),
            segmentations=(self.segmentation,),
            fixed_segmentation=replace(fixed_organs, segments=renamed),
            landmarks=job.Landmarks(POINTS, POINTS[::-1]),
            options=replace(QUICK, inverse=True, smoothness=1.5, instance_iterations=2),
        )
        self.ran: Ran = ask(folder, self.request)
        self.files = job.register_files(self.ran.succeeded)
        self.report = self.ran.succeeded.report

    def ours(self) -> RegistrationResult:
        preset = overridden(load_preset("fast"), 2, 1.5, 2)
        return register(self.fixed, self.moving, preset=preset, device="cpu", global_stage=False)

    def loaded(self, image: job.ImageFile) -> np.ndarray:
        return job.load_array(self.folder, image, "result")


@pytest.fixture(scope="module", params=[TILT, SHEAR], ids=["tilted", "sheared"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("job"), request.param)


def test_events_come_in_order_and_progress_grows_from_0_to_1(pair: Pair) -> None:
    events = pair.ran.events
    assert pair.ran.code == 0
    assert isinstance(events[0], job.Started)
    assert events[0].versions["torch"] == torch.__version__
    assert isinstance(events[-1], job.Succeeded)
    progress = pair.ran.of(job.Progressed)
    fractions = [event.fraction for event in progress]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    stages = [event.stage for event in progress]
    assert stages[:3] == ["read", "register", "prepare"]
    assert {"level 1", "level 2", "refine", "warp", "segmentations", "inverse", "quality", "done"} < set(
        stages
    )
    assert fractions[stages.index("warp")] == pytest.approx(0.85)
    assert pair.ran.of(job.Failed) == []


def test_the_result_is_to_the_bit_what_the_library_gives(pair: Pair) -> None:
    ours, grid = pair.ours(), pair.fixed.geometry
    field = field_of(pair.folder, pair.files.displacement)
    assert field.geometry == ours.displacement.geometry
    assert torch.equal(field.vectors, ours.displacement.vectors)
    warped = pair.loaded(pair.files.warped)
    assert warped.dtype == np.int16
    np.testing.assert_array_equal(warped, np.rint(ours.displacement.warp(pair.moving).data.numpy()))
    np.testing.assert_array_equal(
        pair.loaded(pair.files.jacobian), jacobian_determinant(ours.displacement, grid).data.numpy()
    )
    np.testing.assert_array_equal(
        pair.loaded(pair.files.uncertainty), sampled_on(ours.uncertainty.std_mm, grid).data.numpy()
    )
    for image in (pair.files.warped, pair.files.jacobian, pair.files.uncertainty):
        assert image.geometry == grid


def test_layers_differ_from_simpleitks_nearest_neighbour_in_no_voxel(pair: Pair) -> None:
    field = field_of(pair.folder, pair.files.displacement)
    transform = sitk.DisplacementFieldTransform(interop.to_sitk(field))
    reference = interop.to_sitk(pair.fixed_labels)
    (segmentation,) = pair.files.segmentations
    for image, sent, dtype in zip(
        segmentation.layers, (pair.labels, pair.other), (np.uint8, np.uint16), strict=True
    ):
        theirs = sitk.Resample(interop.to_sitk(sent), reference, transform, sitk.sitkNearestNeighbor, 0)
        ours = pair.loaded(image)
        assert ours.dtype == dtype
        assert np.count_nonzero(ours) > 100
        assert np.count_nonzero(ours != sitk.GetArrayFromImage(theirs)) == 0
        unmoved = sitk.Resample(
            interop.to_sitk(sent), reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0
        )
        assert np.count_nonzero(ours != sitk.GetArrayFromImage(unmoved)) > 100


def test_every_segment_is_judged_as_the_metrics_judge_it(pair: Pair) -> None:
    ours, grid = pair.ours(), pair.fixed.geometry
    stages = {
        "before": resample(pair.labels, grid, AffineTransform.identity()),
        "after": ours.displacement.warp(pair.labels, grid),
    }
    rows = {row["name"]: row for row in pair.report["segments"]}
    assert list(rows) == [segment.name for segment in pair.segmentation.segments]
    square = grid.has_right_angles
    determinant, uncertainty = (
        jacobian_determinant(ours.displacement, grid).data,
        sampled_on(ours.uncertainty.std_mm, grid).data,
    )
    compared = 0
    for label in pair.labels.labels:
        row = rows[pair.labels.name(label)]
        for when, labels in stages.items():
            overlap = dice(pair.fixed_labels, labels)
            reference = label in pair.fixed_labels.labels
            expected = overlap.get(label) if reference else None
            assert row[f"dice_{when}"] == (None if expected is None else pytest.approx(expected))
            distance = hd95(pair.fixed_labels, labels).get(label) if square and reference else None
            finite = None if distance is None or not np.isfinite(distance) else pytest.approx(distance)
            assert row[f"hd95_{when}"] == finite
            compared += finite is not None
        inside = stages["after"].data == label
        volume = inside.sum() * np.prod(grid.spacing) * abs(np.linalg.det(np.asarray(grid.direction))) / 1000
        assert row["volume_ml"] == pytest.approx(float(volume))
        if inside.any():
            points = torch.as_tensor(grid.to_lps(inside.nonzero().flip(-1).numpy()))
            lengths = ours.displacement.at(points).norm(dim=-1)
            assert row["displacement_mean_mm"] == pytest.approx(float(lengths.mean()))
            assert row["displacement_max_mm"] == pytest.approx(float(lengths.max()))
            assert row["uncertainty_mean_mm"] == pytest.approx(float(uncertainty[inside].mean()), rel=1e-4)
            assert row["folding_percent"] == pytest.approx(
                100 * float((determinant[inside] <= 0).double().mean())
            )
    assert compared > 0 or not square


def test_the_report_is_complete_and_agrees_with_the_files(pair: Pair) -> None:
    report, field = pair.report, field_of(pair.folder, pair.files.displacement)
    determinant = pair.loaded(pair.files.jacobian)
    assert report["jacobian"]["min"] == pytest.approx(float(determinant.min()))
    assert report["jacobian"]["max"] == pytest.approx(float(determinant.max()))
    assert report["folding_percent"] == pytest.approx(100 * float((determinant <= 0).mean()))
    assert report["uncertainty_mm"]["max"] == pytest.approx(float(pair.loaded(pair.files.uncertainty).max()))
    assert 0 < report["displacement_mm"]["mean"] < report["displacement_mm"]["max"]
    before = np.linalg.norm(np.subtract(POINTS, POINTS[::-1]), axis=1)
    after = np.linalg.norm(
        field.apply(torch.tensor(POINTS, dtype=torch.float64)).numpy() - POINTS[::-1], axis=1
    )
    np.testing.assert_allclose(report["landmarks_mm"]["before"], before)
    np.testing.assert_allclose(report["landmarks_mm"]["after"], after)
    assert (report["preset"], report["device"], report["fallback"]) == ("fast", "cpu", None)
    assert report["versions"]["torch"] == torch.__version__
    assert {"read", "level 1", "level 2", "refine", "warp", "inverse", "quality"} < set(
        report["stage_seconds"]
    )
    assert sum(report["stage_seconds"].values()) <= report["seconds"] < 60
    assert 100 < report["peak_memory_mb"] < 4000
    assert report["hashes"]["moving"] == job.sha256(pair.folder / "moving.npy")
    assert report["hashes"]["segmentation 0 layer 1"] == job.sha256(pair.folder / "other.npy")
    assert {"fixed", "segmentation 0 layer 0", "fixed segmentation layer 0"} < set(report["hashes"])


def test_the_inverse_leads_back(pair: Pair) -> None:
    field, inverse = (field_of(pair.folder, f) for f in (pair.files.displacement, pair.files.inverse))
    assert (inverse.geometry.to_index(pair.moving.geometry.corners()) > -0.5).all()
    error = inverse_consistency_error(inverse, field, pair.moving.geometry).data
    residual = pair.report["inverse_residual_mm"]
    assert 0 < residual["mean"] < residual["max"]
    assert error.mean() < max(0.1, 5 * residual["mean"])
    away = inverse_consistency_error(field, field, pair.moving.geometry).data
    assert away.mean() > 10 * error.mean()


@pytest.fixture
def request_(tmp_path: Path) -> job.RegisterRequest:
    """The plainest request, its files in `tmp_path`."""
    a, b = patient(6), patient(5)
    return job.RegisterRequest(
        save_scan(tmp_path, "fixed", a.ct), save_scan(tmp_path, "moving", b.ct), options=QUICK
    )


def test_without_asking_for_the_inverse_its_residual_is_still_told(
    tmp_path: Path, request_: job.RegisterRequest
) -> None:
    asked = ask(tmp_path, replace(request_, options=replace(QUICK, inverse=True))).succeeded
    plain = ask(tmp_path, request_).succeeded
    assert job.register_files(plain).inverse is None
    full, sampled = asked.report["inverse_residual_mm"], plain.report["inverse_residual_mm"]
    assert 0 < sampled["max"] <= 1.5 * full["max"]
    assert full["mean"] / 2 < sampled["mean"] < 2 * full["mean"]
    assert plain.report["segments"] == []
    assert plain.report["landmarks_mm"] is None


def test_masks_on_other_grids_and_an_initial_transform_are_used(
    tmp_path: Path, request_: job.RegisterRequest
) -> None:
    grid = request_.fixed.geometry
    moved = replace(request_.moving, geometry=replace(grid, origin=tuple(np.add(grid.origin, (30, 0, 0)))))
    half = grid.coarsened((2, 2, 2))
    mask = torch.zeros(half.shape)
    mask[2:-2, 2:-2, 2:-2] = 1
    shift = ((1.0, 0.0, 0.0, 30.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    asked = replace(
        request_,
        moving=moved,
        fixed_mask=save_labels(tmp_path, "mask", LabelMap(mask, half)),
        initial_transform=job.AffineFile(shift),
    )
    field = field_of(tmp_path, job.register_files(ask(tmp_path, asked).succeeded).displacement)
    on_scan = resample(LabelMap(mask, half), grid, AffineTransform.identity())
    fixed, moving = (
        Volume(torch.from_numpy(np.load(tmp_path / image.array).astype(np.float32)), image.geometry)
        for image in (asked.fixed, asked.moving)
    )
    preset = overridden(load_preset("fast"), 2)
    start_ = AffineTransform(np.asarray(shift))
    ours = register(
        fixed,
        moving,
        preset=preset,
        device="cpu",
        global_stage=False,
        fixed_mask=on_scan,
        initial_transform=start_,
    )
    assert torch.equal(field.vectors, ours.displacement.vectors)
    unmasked = register(
        fixed, moving, preset=preset, device="cpu", global_stage=False, initial_transform=start_
    )
    assert not torch.equal(field.vectors, unmasked.displacement.vectors)
    centred = ask(tmp_path, replace(asked, fixed_mask=None, initial_transform="centres")).succeeded
    again = field_of(tmp_path, job.register_files(centred).displacement)
    torch.testing.assert_close(again.vectors, unmasked.displacement.vectors, atol=1e-3, rtol=0)


ERRORS = [
    (
        "input",
        {"options": replace(QUICK, preset="nonsense")},
        "preset 'nonsense' is not known; choose one of",
    ),
    ("input", {"options": replace(QUICK, levels=99)}, "levels is 99 and preset fast has 4; choose 1 to 4"),
    (
        "input",
        {"moving": job.ImageFile("gone.npy", ImageGeometry((3, 3, 3)))},
        "moving: gone.npy cannot be read",
    ),
    (
        "device",
        {"options": replace(QUICK, device="cuda:77")},
        "device 'cuda:77' is not available; choose auto",
    ),
    (
        "memory",
        {"options": replace(QUICK, memory_limit_mb=10.0)},
        "the limit given is 10 MB; close other programs",
    ),
    ("weights", {"options": replace(QUICK, preset="pdd-net-2019", weights="x.pt", levels=None)}, "x.pt"),
]


@pytest.mark.parametrize(
    ("code", "changes", "message"), ERRORS, ids=[f"{e[0]}-{n}" for n, e in enumerate(ERRORS)]
)
def test_an_error_has_a_code_and_says_what_to_do(
    tmp_path: Path, request_: job.RegisterRequest, code: str, changes: dict[str, object], message: str
) -> None:
    ran = ask(tmp_path, replace(request_, **changes))  # type: ignore[arg-type]
    assert (ran.code, ran.failed.code) == (1, code)
    assert message in ran.failed.message
    assert not (tmp_path / "result" / "displacement.npy").exists()


def test_a_folder_without_a_request_is_an_error_of_input(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    events = [job.parse_event(line) for line in process.stdout]
    assert isinstance(events[-1], job.Failed)
    assert events[-1].code == "input"
    assert ended_within(process, 5) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "memory", "Unable to allocate 9 GiB.*coarser working grid"),
        (RuntimeError("[enforce fail] can't allocate memory: 9 bytes"), "memory", "close other programs"),
        (
            InsufficientMemoryError("needs 9 GB; close other programs"),
            "memory",
            "^needs 9 GB; close other programs$",
        ),
        (RuntimeError("CUDA error: unspecified launch failure"), "device", "choose the CPU"),
        (DeviceError("no such device"), "device", "no such device"),
        (CheckpointError("bad weights"), "weights", "bad weights"),
        (MissingPackageError("no torch"), "missing", "no torch"),
        (InputError("wrong"), "input", "^wrong$"),
        (OSError(28, "No space left on device"), "internal", "disk .* is full"),
        (OSError("192000 requested and 49120 written"), "internal", "disk .* is full"),  # numpy's
        (OSError("192000 requested"), "internal", "unexpected OSError"),
        (KeyError("oops"), "internal", "unexpected KeyError: 'oops'; please report"),
    ],
)
def test_exceptions_are_told_by_what_can_be_done_about_them(error: Exception, code: str, said: str) -> None:
    failed = failure(error)
    assert failed.code == code
    assert re.search(said, failed.message)
    assert ("Error" in failed.details) is (code != "input")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')", "PyTorch is not installed"),
        ("raise OSError('libtorch_cpu.so: cannot open')", "PyTorch cannot be loaded (libtorch_cpu.so"),
    ],
)
def test_without_torch_the_answer_says_how_to_get_it(tmp_path: Path, source: str, said: str) -> None:
    instead = tmp_path / "path"
    instead.mkdir()
    (instead / "torch.py").write_text(source)
    ran = ask(tmp_path, job.DescribeRequest(), env=environment(instead))
    assert isinstance(ran.events[0], job.Started)
    assert (ran.code, ran.failed.code) == (1, "missing")
    assert said in ran.failed.message
    assert "PyTorch extension" in ran.failed.message


def long_job(folder: Path) -> None:
    """A request that takes minutes."""
    a, b = patient(6, (90, 80, 80)), patient(5, (90, 80, 80))
    scans = save_scan(folder, "fixed", a.ct), save_scan(folder, "moving", b.ct)
    options = job.Options(preset="abdomen-ct", device="cpu")
    job.write_request(folder, job.RegisterRequest(*scans, options=options))


def in_the_middle(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A worker that is registering."""
    process = start(folder, *options)
    assert process.stdout is not None
    for line in process.stdout:
        event = job.parse_event(line)
        if isinstance(event, job.Progressed) and event.stage == "prepare":
            return process
        assert not isinstance(event, job.Failed), event
    raise AssertionError("it ended early")


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    long_job(folder)
    return folder


@pytest.mark.parametrize("private", [True, False])
def test_the_end_of_standard_input_ends_it_and_removes_a_private_folder(
    tmp_path: Path, long_folder: Path, private: bool
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    for file in filter(Path.is_file, long_folder.iterdir()):
        os.link(file, folder / file.name)
    process = in_the_middle(folder, *(["--private"] if private else []))
    assert process.stdin is not None
    process.stdin.close()
    assert ended_within(process, 1.0) == 3
    assert folder.exists() is not private


def test_a_folder_that_holds_no_request_is_never_removed(tmp_path: Path, long_folder: Path) -> None:
    del long_folder
    (tmp_path / "precious.txt").write_text("mine")
    code = (
        "import sys, time\nfrom pddnet import worker\n"
        "worker.work = lambda *_: time.sleep(20)\nsys.exit(worker.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "--private"], stdin=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 3
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_ends_it_at_once(long_folder: Path) -> None:
    process = in_the_middle(long_folder, "--private")
    process.send_signal(signal.SIGTERM)
    assert ended_within(process, 1.0) == -signal.SIGTERM
    assert (long_folder / "request.json").exists()  # the other program is there and cleans up


@pytest.mark.skipif(not hasattr(os, "nice"), reason="priorities are POSIX's")
def test_it_leaves_the_cores_to_who_waits_for_it(long_folder: Path) -> None:
    with in_the_middle(long_folder) as process:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        process.kill()


def test_it_says_every_second_that_it_lives_and_moves(long_folder: Path) -> None:
    process = in_the_middle(long_folder)
    assert process.stdout is not None
    ticks: list[int] = []
    for line in process.stdout:
        event = job.parse_event(line)
        if isinstance(event, job.Alive):
            ticks.append(event.ticks)
        if len(ticks) == 4:
            break
    process.kill()
    ended_within(process, 5)
    assert ticks == sorted(ticks)
    assert ticks[-1] > ticks[0]


def waiting(*options: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A worker that will be told its folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "pddnet.worker", "--wait", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=env or environment(),
    )


def tell(process: subprocess.Popen[str], folder: Path) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()


def ticks_of(process: subprocess.Popen[str]) -> int:
    """Hundredths of a second of all cores that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """The worker when it has loaded PyTorch and come to rest."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        before = ticks_of(process)
        time.sleep(0.3)
        loaded = "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text()
        if loaded and ticks_of(process) == before:
            return process
    raise AssertionError("it does not come to rest")


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")


@needs_proc
def test_a_waiting_worker_is_quiet_and_idle_then_serves_its_one_job(tmp_path: Path) -> None:
    folder = tmp_path / "a folder of scäns"
    folder.mkdir()
    job.write_request(folder, job.SyntheticRequest(6, 5, (24, 22, 20), 3.0))
    process = ready(waiting())
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    before = ticks_of(process)
    time.sleep(1.5)  # more than a heartbeat
    with pytest.raises(BlockingIOError):  # nothing has come
        os.read(process.stdout.fileno(), 1)
    assert ticks_of(process) == before
    os.set_blocking(process.stdout.fileno(), True)
    tell(process, folder)
    ran = listened_to(process)
    assert isinstance(ran.events[0], job.Started)
    assert ran.code == 0
    cold = ask(folder, job.SyntheticRequest(6, 5, (24, 22, 20), 3.0))
    assert ran.succeeded == cold.succeeded
    assert [type(e) for e in ran.events if not isinstance(e, job.Alive)] == [
        type(e) for e in cold.events if not isinstance(e, job.Alive)
    ]


@needs_proc
def test_a_worker_that_is_told_while_it_loads_answers_at_once_and_serves(tmp_path: Path) -> None:
    job.write_request(tmp_path, job.DescribeRequest())
    process = waiting()
    tell(process, tmp_path)
    assert process.stdout is not None
    assert isinstance(job.parse_event(process.stdout.readline()), job.Started)
    assert "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text()
    assert "cpu" in listened_to(process).succeeded.report["devices"]


@needs_proc
@pytest.mark.parametrize("loaded", [False, True], ids=["while it loads", "while it waits"])
def test_the_end_of_standard_input_ends_a_waiting_worker_quietly(loaded: bool) -> None:
    process = waiting("--private")
    if loaded:
        ready(process)
    time.sleep(0.5)
    assert process.poll() is None  # it waits as long as somebody is there
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.close()
    assert process.wait(timeout=5) == 3
    assert (process.stdout.read(), process.stderr.read()) == ("", "")
    ended_within(process, 1)


def test_a_folder_told_to_a_waiting_worker_is_private_too(tmp_path: Path, long_folder: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    for file in filter(Path.is_file, long_folder.iterdir()):
        os.link(file, folder / file.name)
    process = waiting("--private")
    tell(process, folder)
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        event = job.parse_event(line)
        if isinstance(event, job.Progressed) and event.stage == "prepare":
            break
    process.stdin.close()
    assert ended_within(process, 1.0) == 3
    assert not folder.exists()


def test_a_waiting_worker_without_torch_says_so_once_it_is_asked(tmp_path: Path) -> None:
    instead = tmp_path / "path"
    instead.mkdir()
    (instead / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot open')")
    job.write_request(tmp_path, job.DescribeRequest())
    process = waiting(env=environment(instead))
    tell(process, tmp_path)
    ran = listened_to(process)
    assert isinstance(ran.events[0], job.Started)
    assert (ran.code, ran.failed.code) == (1, "missing")
    assert "PyTorch cannot be loaded (libtorch_cpu.so" in ran.failed.message


@pytest.mark.parametrize("arguments", [[], ["--wait", "folder"]], ids=["neither", "both"])
def test_a_folder_and_waiting_for_one_exclude_each_other(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "give a folder, or --wait" in capsys.readouterr().err


CHATTY = """
import os, sys
from pddnet import job, worker, worker_jobs
def run(request, folder, channel):
    print("a stray line"); sys.stdout.flush(); os.write(1, b"from C\\n"); print("{}", file=sys.__stdout__)
    assert sys.stdin.read() == ""
    return job.Succeeded({}, {"fine": True})
worker_jobs.run = run
sys.exit(worker.main(sys.argv[1:]))
"""


def test_what_others_print_does_not_reach_the_events(tmp_path: Path) -> None:
    job.write_request(tmp_path, job.DescribeRequest())
    process = subprocess.Popen(
        [sys.executable, "-c", CHATTY, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    events = [job.parse_event(line) for line in process.stdout]
    said = process.stderr.read()
    assert ended_within(process, 5) == 0
    assert [type(event) for event in events if not isinstance(event, job.Alive)] == [
        job.Started,
        job.Succeeded,
    ]
    assert "a stray line" in said
    assert "from C" in said


def test_describe_names_versions_and_devices(tmp_path: Path) -> None:
    report = ask(tmp_path, job.DescribeRequest()).succeeded.report
    assert report["versions"]["torch"] == torch.__version__
    assert "threads" in report["devices"]["cpu"]
    assert len(report["devices"]) == 1 + torch.cuda.device_count()


def test_synthetic_patients_are_those_of_the_library(tmp_path: Path) -> None:
    ran = ask(tmp_path, job.SyntheticRequest(6, 5, (24, 22, 20), 3.0))
    files = job.synthetic_files(ran.succeeded)
    for scan, labels, seed in ((files.fixed, files.fixed_labels, 6), (files.moving, files.moving_labels, 5)):
        ours = patient(seed)
        assert scan.geometry == ours.ct.geometry
        np.testing.assert_array_equal(job.load_array(tmp_path, scan, "scan"), ours.ct.data.numpy())
        np.testing.assert_array_equal(job.load_array(tmp_path, labels, "labels"), ours.labels.data.numpy())
        assert labels.names == {str(n): name for n, name in ours.labels.names.items()}
    assert ran.succeeded.report["fixed"]["synthetic"] is True
    json.dumps(ran.succeeded.report, allow_nan=False)
