"""The benchmarks: what they report, how they end, and the arithmetic behind their tables. Nothing here is timed."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest
import torch

from benchmarks import run
from benchmarks.growth_section import curve
from benchmarks.layers_section import summary
from benchmarks.naive_layers import naive_layers
from benchmarks.page import page
from benchmarks.scans import refined_scan, shrunken_pair
from benchmarks.statistics_of_runs import exponent, ratio_of_medians
from pddnet import cli
from pddnet.benchmarks import machine
from pddnet.benchmarks.child import ChildRun, run_json
from pddnet.benchmarks.layers import (
    FEATURE_SHAPE,
    LayerProblem,
    LayerRun,
    layer_report,
    least_work,
    pass_bytes,
    run_layers,
)
from pddnet.benchmarks.machine import MachineLimits, Work, measure_limits
from pddnet.benchmarks.registering import PairFiles, write_pair
from pddnet.errors import InputError
from pddnet.interop.simpleitk import read_label_map, read_volume
from pddnet.regularisation import PUBLISHED_WEIGHTS

CPU = torch.device("cpu")
LIMITS = MachineLimits(copy_gb_s=10.0, in_place_gb_s=20.0, gemm_gflop_s=100.0, elementwise_gop_s=5.0)


def numbers(value: Any) -> Iterator[float]:
    """All numbers of a JSON document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """The JSON document of one `pddnet bench`."""
    assert cli.main(["bench", *map(str, arguments), "--json"]) == cli.OK
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_layers_report_seconds_memory_stages_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--control-points", 12, "--labels", 7, "--channels", 4, "--repeat", 3, "--threads", 1]
    report = printed(capsys, "layers", *options)
    assert {
        "seconds",
        "peak_mb",
        "stages",
        "limits",
        "least_bytes",
        "least_flops",
        "machine",
    } <= report.keys()
    assert all(math.isfinite(n) for n in numbers(report))
    assert sorted(report["all_seconds"])[1] == report["seconds"]
    assert 0.5 * report["seconds"] < sum(report["stages"].values()) <= report["seconds"]
    assert report["peak_mb_of_all_runs"] >= report["peak_mb"]
    assert report["volume_mb"] == pytest.approx(4 * 84**3 / 1e6)
    assert 0 < report["fraction_of_limit"] == pytest.approx(report["least_seconds"] / report["seconds"])
    assert all(rate > 0 for rate in report["limits"].values())
    assert report["machine"]["threads"] == 1


def test_the_machine_is_described_but_not_named() -> None:
    facts = machine.machine_facts(CPU)
    assert {"processor", "cores", "threads", "torch"} <= facts.keys()
    assert platform.node() not in json.dumps(facts)


def test_the_layers_say_it_in_words_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "found.npy"
    options = ["--control-points", "3", "--labels", "3", "--channels", "2", "--seed", "4"]
    assert cli.main(["bench", "layers", *options, "--repeat", "1", "--save", str(file)]) == cli.OK
    said = capsys.readouterr().out
    assert "3^3 control points, 3^3 labels, 2 channels" in said
    assert "GB/s" in said
    fixed, moving = LayerProblem(3, 3, 2, 4).features()
    npt.assert_allclose(
        np.load(file), run_layers(LayerProblem(3, 3, 2, 4), fixed, moving).displacement, atol=1e-6
    )


def naive_displacement(problem: LayerProblem) -> torch.Tensor:
    fixed, moving = problem.features()
    points, labels = problem.level.points(fixed), problem.level.labels(fixed)
    found: torch.Tensor = naive_layers(fixed, moving, points, labels, PUBLISHED_WEIGHTS)
    return found


def test_ours_and_the_naive_layers_find_the_same() -> None:
    problem = LayerProblem(control_points=6, labels=5, channels=3, seed=1)
    ours = run_layers(problem, *problem.features()).displacement
    npt.assert_allclose(ours, naive_displacement(problem), atol=1e-5)
    assert ours.abs().max() > 0.05
    other = naive_displacement(LayerProblem(6, 5, 3, seed=2))
    assert (ours - other).abs().max() > 0.05  # the negative control: other features, other displacements


def test_features_are_smooth_and_the_same_for_one_seed() -> None:
    problem = LayerProblem(channels=2, seed=3)
    for first, second in zip(problem.features(), problem.features(), strict=True):
        assert torch.equal(first, second)
        steps = torch.cat([first.diff(dim=axis).abs().flatten() for axis in (2, 3, 4)])
        assert steps.mean() < 0.2 * first.std()
    assert not torch.equal(problem.features()[0], LayerProblem(channels=2, seed=4).features()[0])


def test_the_least_work_is_features_in_and_moments_out() -> None:
    one, another = LayerProblem(control_points=2, labels=3, channels=5), LayerProblem(2, 3, 6)
    voxels = math.prod(FEATURE_SHAPE)
    assert least_work(one).bytes == 4 * (2 * 5 * voxels + 7 * 2**3)
    assert least_work(another).bytes - least_work(one).bytes == 4 * 2 * voxels
    assert least_work(another).flops - least_work(one).flops == 2 * 6**3
    assert pass_bytes(one) == 9 * 4 * 6**3


def test_the_limit_is_the_slower_of_memory_and_arithmetic() -> None:
    assert LIMITS.least_seconds(Work(40e9, 1.0)) == pytest.approx(2.0)
    assert LIMITS.least_seconds(Work(40e9, 500e9)) == pytest.approx(5.0)


def test_the_run_of_median_length_is_reported() -> None:
    nothing = torch.zeros(0)
    runs = [LayerRun(s, {"all": s}, nothing) for s in (9.0, 2.0, 1.0, 3.0)]
    report = layer_report(LayerProblem(2, 2, 2), runs, LIMITS, 7.0)
    assert (report["seconds"], report["stages"], report["peak_mb"]) == (2.0, {"all": 2.0}, 7.0)


def test_rates_of_the_machine_are_rates_of_its_fastest_try(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(n) * n for n in range(1, 1000))  # each interval is longer than the one before
    monkeypatch.setattr(machine, "now", lambda _: next(clock))
    limits = measure_limits(CPU, elements=1 << 18, matrix_size=8)
    assert limits.copy_gb_s == pytest.approx(1e-9 * 8 * (1 << 18) / 3)  # of the first try, 4 - 1
    assert limits.gemm_gflop_s < 1e-9 * 2 * 8**3


def test_the_processor_s_model_is_found(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: A Fine CPU @ 3 GHz\n", encoding="ascii")
    assert machine._processor(file) == "A Fine CPU @ 3 GHz"
    assert machine._processor(tmp_path / "none")


def test_an_exponent_is_the_slope_between_logarithms() -> None:
    sizes = [1e6, 2e6, 4e6, 8e6]
    assert exponent(sizes, [3.0 * size**1.25 for size in sizes]) == pytest.approx(1.25)
    assert exponent(sizes, [5.0] * 4) == pytest.approx(0.0)
    noisy = [size * factor for size, factor in zip(sizes, (1.1, 0.9, 0.9, 1.1), strict=True)]
    assert exponent(sizes, noisy) == pytest.approx(1.0)  # this noise is not along the slope
    assert exponent([2.0, 4.0], [1.0, 8.0]) == pytest.approx(3.0)
    assert exponent([1.0, 8.0], [2.0, 4.0]) == pytest.approx(1 / 3)  # the other way round


@pytest.mark.parametrize(
    ("sizes", "values"),
    [([1.0], [1.0]), ([2.0, 2.0], [1.0, 3.0]), ([1.0, 2.0], [0.0, 1.0]), ([1.0, 2.0], [1.0])],
)
def test_an_exponent_of_nothing_is_refused(sizes: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        exponent(sizes, values)


def test_memory_grows_from_what_an_idle_program_takes() -> None:
    found = curve([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [310.0, 320.0, 340.0], 300.0)
    assert found["memory_exponent"] == pytest.approx(1.0)
    assert found["time_exponent"] == pytest.approx(1.0)
    assert curve([1.0, 2.0], [1.0, 2.0], [300.0, 310.0], 300.0)["memory_exponent"] is None


def child(seconds: list[float], peak_mb: float) -> ChildRun:
    report = {"all_seconds": seconds, "seconds": seconds[0], "peak_mb": peak_mb, "stages": {}}
    return ChildRun(report, 99.0, peak_mb)


def test_a_ratio_is_that_of_medians() -> None:
    assert ratio_of_medians([10.0, 8.0, 900.0], [2.0, 1.0, 2.0, 50.0, 2.0]) == 5.0
    ours = [child([1.0, 2.0, 3.0], 100.0), child([2.0, 2.0, 70.0], 120.0)]
    found = summary(ours, [child([50.0], 440.0)], 0.0)
    assert found["time_ratio"] == 25.0
    assert found["memory_ratio"] == 4.0
    assert found["our_peak_mb"] == 120.0


@pytest.mark.parametrize("end", ["", "import os\nsys.stdout.flush()\nos._exit(0)\n"])
def test_peak_memory_is_that_of_the_program_itself_however_it_ends(tmp_path: Path, end: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import sys\nx = b'1' * int(sys.argv[1])\nprint('{{}}')\n{end}", encoding="ascii")
    parent_holds = torch.ones(10**8)  # 400 MB, more than the children have
    little, much = (run_json(str(program), [size]).peak_mb for size in (1, 10**8))
    assert much - little == pytest.approx(100.0, rel=0.1)
    assert much < parent_holds.element_size() * parent_holds.numel() / 1e6


def test_what_a_child_says_when_it_fails_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pddnet warp: .*no-field.h5 does not exist"):
        run_json(
            "pddnet", ["warp", "a.nii", "--transform", tmp_path / "no-field.h5", "--out", tmp_path / "a.nii"]
        )
    broken = tmp_path / "broken.py"
    broken.write_text("raise KeyError('of its own')\n", encoding="ascii")
    with pytest.raises(RuntimeError, match=r"of its own.*exit code 1"):
        run_json(str(broken))


@pytest.mark.parametrize(
    "arguments",
    [
        ["layers", "--control-points", "0"],
        ["layers", "--labels", "2.5"],
        ["layers", "--repeat", "none"],
        ["register", "--size", "192x160"],
        ["register", "--size", "192x-1x160"],
        ["nonsense"],
        [],
    ],
)
def test_a_bench_that_cannot_be_understood_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *arguments])
    assert ended.value.code == cli.BAD_INPUT
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["layers", "--seed", "-1"], cli.BAD_INPUT, "a seed of at least 0"),
        (["layers", "--device", "tpu"], cli.BAD_INPUT, "device 'tpu' is not available"),
        (["layers", "--save", "numbers.txt"], cli.BAD_INPUT, "ends with none of .npy"),
        (
            ["layers", "--control-points", "999", "--labels", "99"],
            cli.NOT_ENOUGH_MEMORY,
            "fewer control points",
        ),
        (["register", "--preset", "no-such"], cli.BAD_INPUT, "no-such"),
        (["register", "--size", "8x8x8"], cli.BAD_INPUT, "at least 16 voxels"),
        (["register", "--spacing", "0"], cli.BAD_INPUT, "a positive spacing"),
        (["register", "--seed", "-9", "--size", "16x16x16"], cli.BAD_INPUT, "seed"),
    ],
)
def test_a_bench_that_cannot_be_done_says_why(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *arguments]) == code
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("pddnet bench: ")
    assert said in sentence


@pytest.mark.parametrize("name", ["layers", "register"])
def test_each_benchmark_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", name, "--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    assert all(
        option in text for option in ("--json", "--debug", "--repeat", "--seed", "--threads", "--device")
    )


def test_a_registration_reports_itself_and_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    report = printed(
        capsys, "register", "--size", "40x40x40", "--spacing", 4, "--preset", "fast", "--device", "cpu"
    )
    assert {"seconds", "command_seconds", "peak_mb", "stages", "dice_before", "dice_after"} <= report.keys()
    assert all(math.isfinite(n) for n in numbers(report))
    assert 0.5 * report["seconds"] < sum(report["stages"].values()) <= report["seconds"]
    assert report["command_seconds"] > report["seconds"]
    assert report["peak_mb"] > 0.99 * report["registration_peak_mb"] > 100  # counters of pages lag a little
    assert report["dice_after"] > report["dice_before"] + 0.1
    assert (report["size"], report["voxels"], report["preset"]) == ([40, 40, 40], 64000, "fast")
    assert 0 <= report["folding_percent"] < 1


def alive_with(text: str) -> list[str]:
    """Command lines of the running processes that mention `text`."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended meanwhile
            continue
    return [line for line in lines if text in line]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs a list of processes to look into")
def test_a_bench_that_is_interrupted_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent.parent), "TMPDIR": str(tmp_path)}
    options = ["--size", "64x64x64", "--spacing", "3", "--preset", "abdomen-ct", "--repeat", "50"]
    command = [sys.executable, "-m", "pddnet", "bench", "register", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            assert process.stderr is not None
            lines = [process.stderr.readline() for _ in range(2)]  # the pair is made, the command begins
            assert "pddnet register" in lines[-1], lines
            deadline = time.monotonic() + 60
            while not alive_with(str(tmp_path)) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert alive_with(str(tmp_path))  # so that the end of it proves something
            process.send_signal(signal.SIGTERM)
            out, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == cli.CANCELLED, said
    assert said.splitlines()[-1] == "pddnet bench: cancelled; nothing was written"
    assert out == ""
    assert alive_with(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pair(tmp_path: Path) -> PairFiles:
    folder = tmp_path / "pair"
    folder.mkdir()
    return write_pair(folder, (32, 24, 40), 6.0)


def test_a_shrunken_pair_has_fewer_voxels_of_the_same_size_and_the_same_organs(
    pair: PairFiles, tmp_path: Path
) -> None:
    small, voxels = shrunken_pair(pair, tmp_path / "small", 8)
    scan, before = read_volume(small.fixed), read_volume(pair.fixed)
    assert scan.geometry.size == (16, 12, 20)
    assert voxels == 16 * 12 * 20
    npt.assert_allclose(scan.geometry.spacing, before.geometry.spacing)
    assert scan.mean() == pytest.approx(before.mean(), abs=20)
    kept = set(read_label_map(small.moving_labels).labels)
    assert {1, 2} <= kept <= set(read_label_map(pair.moving_labels).labels)
    assert shrunken_pair(pair, tmp_path / "same", 1) == (pair, 32 * 24 * 40)


def test_a_refined_scan_shows_the_same_field_of_view(pair: PairFiles, tmp_path: Path) -> None:
    refined_scan(pair.fixed, tmp_path / "fine.nii.gz", (64, 60, 50))
    fine, coarse = read_volume(tmp_path / "fine.nii.gz"), read_volume(pair.fixed)
    assert fine.geometry.size == (64, 60, 50)
    npt.assert_allclose(fine.geometry.corners(), coarse.geometry.corners(), atol=1e-3)
    npt.assert_allclose(fine.geometry.extent, coarse.geometry.extent, rtol=1e-5)
    assert torch.equal(fine.data, fine.data.round())
    assert fine.mean() == pytest.approx(coarse.mean(), abs=5)


def test_make_bench_measures_and_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--quick", "--only", "layers", "growth", "--out", str(tmp_path)]) == cli.OK
    sections = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    assert all(math.isfinite(n) for n in numbers(sections))
    (compared,) = sections["layers"]["rows"]
    assert compared["largest_difference"] < 1e-5
    assert compared["time_ratio"] == ratio_of_medians(compared["naive_seconds"], compared["our_seconds"])
    assert "times as fast as the naive ones" in capsys.readouterr().out
    growth = sections["growth"]
    assert [round(size) for size in growth["control points"]["sizes"]] == [8, 64]
    assert growth["voxels"]["fast"]["sizes"] == [20**3, 40**3]
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    for name in ("benchmarks-layers.svg", "benchmarks-growth.svg"):
        assert name in text
        assert (tmp_path / name).read_text(encoding="utf-8").startswith("<?xml")
    assert platform.node() not in text


def test_what_is_not_measured_again_stays_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = machine.machine_facts(CPU)
    one = {
        "seconds": 1.5,
        "command_seconds": 2.5,
        "peak_mb": 3000.0,
        "registration_peak_mb": 2000.0,
        "folding_percent": 0.0,
    }
    row = {"preset": "fast", "size": [9, 8, 7], "usual": one, "large": one, "time_ratio": 1.0}
    earlier = {"large": {"rows": [row], "usual_size": [3, 2, 1], "machine": facts}}
    (tmp_path / "benchmarks.json").write_text(json.dumps(earlier), encoding="utf-8")
    new = {"rows": [], "size": [1, 2, 3], "spacing_mm": 2.0, "machine": facts}
    monkeypatch.setattr(run, "measure", lambda *_: iter([("register", new)]))
    assert run.main(["--quick", "--out", str(tmp_path)]) == cli.OK
    after = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    assert after == earlier | {"register": new}
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "| `fast` | 9x8x7 | 1.5 | 2.5 | 2000 | 3000 | 0.0000 |" in text
    assert text == page(after)


def test_a_cancelled_make_bench_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure", interrupted)
    assert run.main(["--quick", "--out", str(tmp_path / "docs")]) == cli.CANCELLED
    assert list(tmp_path.iterdir()) == []
