"""The demonstration: everything a registration leaves behind, from two patients nobody scanned."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pddnet import cli, demo
from pddnet.demo import run_demo, summary
from pddnet.errors import InputError, RegistrationCancelled
from pddnet.interop.simpleitk import read_label_map, read_transform, read_volume
from pddnet.metrics import dice
from pddnet.progress import Progress
from pddnet.synthetic import ORGAN_NAMES
from pddnet.warp import resample
from tiny_preset import PRESET

FILES = {
    "entropy.nii.gz",
    "figure.png",
    "fixed-labels.nii.gz",
    "fixed.nii.gz",
    "inverse-transform.h5",
    "jacobian.nii.gz",
    "moving-labels.nii.gz",
    "moving.nii.gz",
    "report.json",
    "transform.h5",
    "uncertainty.nii.gz",
    "warped-labels.nii.gz",
    "warped.nii.gz",
}


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "small.toml"
    path.write_text(PRESET, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(preset: Path) -> Any:
    """`run_demo` on scans of 10 mm voxels."""
    return partial(run_demo, preset=preset, device="cpu", size=(36, 30, 42), spacing_mm=10.0)


@pytest.fixture(scope="module")
def done(small: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, list[Progress]]:
    """A finished demonstration: the report, its folder, and what was told on the way."""
    told: list[Progress] = []
    out = tmp_path_factory.mktemp("demo") / "new" / "results"
    return small(out, on_progress=told.append), out, told


def test_it_leaves_scans_labels_transforms_maps_report_and_figure(done: Any) -> None:
    report, out, _ = done
    assert {path.name for path in out.iterdir()} == FILES == set(report["files"])
    assert json.loads((out / "report.json").read_text("utf-8")) == report


def test_the_organs_agree_better_afterwards(done: Any) -> None:
    report, _, _ = done
    assert list(report["dice_before"]) == list(report["dice_after"]) == list(ORGAN_NAMES.values())
    assert report["mean_dice_after"] > report["mean_dice_before"] + 0.1
    assert report["folding_percent"] < 1


def test_the_files_agree_with_each_other_and_with_the_report(done: Any) -> None:
    report, out, _ = done
    fixed, moving, warped = (
        read_label_map(out / f"{name}.nii.gz") for name in ("fixed-labels", "moving-labels", "warped-labels")
    )
    transform = read_transform(out / "transform.h5")
    again = resample(moving, fixed.geometry, transform)
    assert (again.data == warped.data).float().mean() > 0.999
    for label, score in dice(fixed, warped).items():
        assert score == pytest.approx(report["dice_after"][ORGAN_NAMES[label]])
    assert read_volume(out / "fixed.nii.gz").geometry.is_close(fixed.geometry)


def test_it_says_everywhere_that_the_patients_are_synthetic(done: Any) -> None:
    report, out, _ = done
    for role, seed in (("fixed", 6), ("moving", 5)):
        assert report["synthetic"][role]["synthetic"] is True
        assert report["synthetic"][role]["seed"] == seed
    assert "synthetic" in summary(report, out)


def test_the_summary_is_a_table_that_says_where_the_results_are(done: Any) -> None:
    report, out, _ = done
    lines = summary(report, out).splitlines()
    for line, name in zip(lines[1:], ORGAN_NAMES.values(), strict=False):
        assert line.startswith(name)
        assert line.endswith(f"{report['dice_after'][name]:.2f}")
    assert any(line.startswith("mean") for line in lines)
    assert lines[-1].endswith(str(out))


def test_progress_runs_from_the_patients_to_the_end(done: Any) -> None:
    _, _, told = done
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert told[0].stage == "patients"
    assert [progress.stage for progress in told].count("done") == 1
    assert {"level 1", "write", "figure"} <= {progress.stage for progress in told}


@pytest.mark.parametrize("stage", ["level 1", "figure"])
def test_cancelled_at_any_stage_it_leaves_nothing(small: Any, tmp_path: Path, stage: str) -> None:
    stages: list[str] = []
    with pytest.raises(RegistrationCancelled):
        small(
            tmp_path / "out",
            on_progress=lambda progress: stages.append(progress.stage),
            cancelled=lambda: stage in stages,
        )
    assert stage in stages
    assert list(tmp_path.iterdir()) == []


def test_it_makes_do_without_matplotlib_and_says_so(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = small(tmp_path)
    assert report["figure"] is None
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"figure.png"} == set(report["files"])
    assert "matplotlib" in summary(report, tmp_path)


def test_a_folder_it_cannot_use_is_refused_before_any_work(small: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        small(tmp_path / "file", on_progress=lambda _: pytest.fail("work began"))


def test_the_command_line_prints_the_table(
    preset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "run_demo", partial(run_demo, size=(36, 30, 42), spacing_mm=10.0))
    arguments = ["demo", "--out", str(tmp_path / "out"), "--preset", str(preset), "--device", "cpu"]
    assert cli.main(arguments) == cli.OK
    printed = capsys.readouterr()
    assert printed.out.startswith("Dice")
    assert printed.out.strip().endswith(str(tmp_path / "out"))
    assert "synthetic patients" in printed.err


def test_the_inverse_leads_back(done: Any) -> None:
    _, out, _ = done
    forth, back = (read_transform(out / f"{name}.h5") for name in ("transform", "inverse-transform"))
    points = torch.tensor([[0.0, 0.0, 0.0], [60.0, 10.0, 40.0], [-50.0, -20.0, -60.0]], dtype=torch.float64)
    assert (back.apply(forth.apply(points)) - points).norm(dim=-1).max() < 2.0
    assert (forth.apply(points) - points).norm(dim=-1).max() > 2.0
