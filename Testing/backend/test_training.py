"""Training from end to end on tiny made-up scans: the loss falls, a killed training goes on with the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.tiny_dataset import CONFIG, as_toml, write_dataset
from pddnet.config import CubeLevel, Preset
from pddnet.data import Dataset
from pddnet.errors import InputError, TrainingCancelled
from pddnet.learning import monitor as monitors
from pddnet.learning import registry
from pddnet.learning.cases import training_cases
from pddnet.learning.grid import TrainingGrid
from pddnet.learning.monitor import read_history
from pddnet.learning.pairs import GridScans, PairSource
from pddnet.learning.settings import Augmentation, TrainingConfig, Validation, read_training_config
from pddnet.learning.state import STATE
from pddnet.learning.trainer import BEST, LAST, SUMMARY, train
from pddnet.learning.validation import overlap_of, validate
from pddnet.progress import Progress
from pddnet.published import network_of
from pddnet.registration import register
from pddnet.strict_json import from_json
from pddnet.trained_weights import load_trained

BACKEND = Path(__file__).resolve().parents[2] / "PDDRegistration"


def config(**changes: Any) -> TrainingConfig:
    return replace(from_json(TrainingConfig, {**CONFIG, "dataset": "dataset.json"}, "it"), **changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.read(write_dataset(tmp_path_factory.mktemp("tiny"), 4))


def names(dataset: Dataset) -> list[str]:
    return [case.name for case in dataset.cases]


def totals(folder: Path) -> list[float]:
    return [value for _, name, value in read_history(folder) if name == "loss/total"]


# --- that it learns


def test_the_loss_falls_and_the_labels_overlap_more(dataset: Dataset, tmp_path: Path) -> None:
    long = config(
        iterations=60,
        validation=Validation(every=60, pairs=4),
        augmentation=Augmentation(affine=0.02, gamma=0.1, noise=0.02),
    )
    best = train(long, dataset, names(dataset), tmp_path / "out", device="cpu")
    losses = totals(tmp_path / "out")
    assert len(losses) == 60
    assert sum(losses[-15:]) < 0.85 * sum(losses[:15])
    source = PairSource(
        GridScans(dataset, long.grid), names(dataset), True, Augmentation(affine=0.0), torch.device("cpu")
    )
    pairs = source.some_pairs(12)
    trained = validate(registry.restore(load_trained(best)), source, pairs).value
    untrained = validate(registry.create("pdd-net", long.settings).eval(), source, pairs).value
    assert trained > untrained + 0.03


def test_without_labels_it_learns_from_the_descriptors(tmp_path: Path) -> None:
    dataset = Dataset.read(write_dataset(tmp_path, 3, unlabelled=3))
    settings = {**CONFIG["settings"], "supervision": "mind"}
    train(config(settings=settings, iterations=30), dataset, names(dataset), tmp_path / "out", device="cpu")
    terms = {name for _, name, _ in read_history(tmp_path / "out")}
    assert terms == {"loss/mind", "loss/diffusion", "loss/total", "validation/loss"}
    losses = totals(tmp_path / "out")
    assert sum(losses[-10:]) < sum(losses[:10])


@pytest.mark.parametrize(
    "settings",
    [
        {"features": "mind-ssc"},
        {"mean_field": False},
        {"label_loss": "spatial-transformer"},
        {"label_loss": "soft-dice"},
    ],
)
def test_each_ablation_trains_by_the_same_call(
    dataset: Dataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    chosen = config(settings={**CONFIG["settings"], **settings}, iterations=2)
    best = load_trained(train(chosen, dataset, names(dataset), tmp_path / "out", device="cpu"))
    for key, value in settings.items():
        assert best.config[key] == value
    scan = torch.rand(1, 1, *chosen.grid.shape)
    assert registry.restore(best).displacement(scan, scan).shape == (1, 3, *chosen.grid.shape)


# --- what it leaves


def test_the_folder_holds_weights_history_summary_and_state(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[Progress] = []
    chosen = config(licence="CC0", note="for a test")
    best = train(
        chosen, dataset, names(dataset), tmp_path / "new" / "out", device="cpu", on_progress=seen.append
    )
    folder = tmp_path / "new" / "out"
    assert best == folder / BEST
    assert {file.name for file in folder.iterdir()} == {
        BEST, LAST, SUMMARY, STATE, "history.csv", "preset.toml",
    }  # fmt: skip
    weights = load_trained(folder / LAST)
    assert weights.licence == "CC0"
    for words in ("data set tiny (CC0)", "4 training cases", "seed 0", "for a test", "6 iterations"):
        assert words in weights.training_note
    assert TrainingGrid.of(weights.grid) == chosen.grid
    summary = json.loads((folder / SUMMARY).read_text("utf-8"))
    assert (summary["iteration"], summary["stopped"]) == (6, "")
    assert summary["training_cases"] == names(dataset)
    assert summary["best"] == pytest.approx(
        max(v for _, n, v in read_history(folder) if n == "validation/dice")
    )
    assert [p.fraction for p in seen] == [n / 6 for n in range(1, 7)]
    assert "loss" in seen[-1].message


def test_the_callers_random_numbers_stay_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(config(iterations=1), dataset, names(dataset), tmp_path / "out", device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_the_seed_decides_everything(dataset: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(config(seed=seed), dataset, names(dataset), tmp_path / name, device="cpu")
    assert totals(tmp_path / "a") == totals(tmp_path / "b") != totals(tmp_path / "c")
    assert load_trained(tmp_path / "a" / LAST).sha256 == load_trained(tmp_path / "b" / LAST).sha256


def test_a_preset_runs_the_weights_as_they_were_trained(dataset: Dataset, tmp_path: Path) -> None:
    """`register` under the preset that the training wrote, against the module itself on the training grid."""
    searches = {**CONFIG["settings"], "searches": [1.0, 0.5]}
    chosen = config(iterations=20, learning_rate=0.02, settings=searches)
    best = train(chosen, dataset, names(dataset), tmp_path / "out", device="cpu")
    fixed, moving = dataset.image("case 0"), dataset.image("case 1")
    result = register(fixed, moving, preset=tmp_path / "out" / "preset.toml", device="cpu")
    model = registry.restore(load_trained(best))
    images = chosen.grid.image(fixed), chosen.grid.image(moving)
    normalised = model.displacement(*images, instance_optimisation=True)  # type: ignore[call-arg]
    field = chosen.grid.displacement(normalised, fixed.geometry, moving.geometry)
    points = torch.as_tensor(chosen.grid.geometry(fixed.geometry).samples(5))
    inner = points.mean(0) + 0.6 * (points - points.mean(0))
    found, expected = result.displacement.at(inner), field.at(inner)
    shift = torch.as_tensor(moving.geometry.centre - fixed.geometry.centre)
    deformation, error = (expected - shift).norm(dim=-1), (found - expected).norm(dim=-1)
    assert error.max() < 0.6  # mm; control points are 12 mm apart, and the result lies on a grid of 5 mm
    assert error.mean() < 0.1 * deformation.mean()


# --- going on


def test_a_resumed_training_has_the_losses_of_one_that_was_never_stopped(
    dataset: Dataset, tmp_path: Path
) -> None:
    varied = config(augmentation=Augmentation(affine=0.03, gamma=0.2, noise=0.05), seed=3)
    train(varied, dataset, names(dataset), tmp_path / "whole", device="cpu")
    asked = iter(range(100))
    with pytest.raises(TrainingCancelled, match="cancelled after 4 iterations; resume it"):
        train(
            varied,
            dataset,
            names(dataset),
            tmp_path / "cut",
            device="cpu",
            cancelled=lambda: next(asked) >= 4,
        )
    assert len(totals(tmp_path / "cut")) == 4
    train(varied, dataset, names(dataset), tmp_path / "cut", device="cpu", resume=True)
    assert read_history(tmp_path / "cut") == read_history(tmp_path / "whole")
    for name in (BEST, LAST):
        assert load_trained(tmp_path / "cut" / name).sha256 == load_trained(tmp_path / "whole" / name).sha256


def test_a_killed_process_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL in the middle of a training, at a moment of its own choosing."""
    write_dataset(tmp_path, 3)
    table = {**CONFIG, "dataset": "dataset.json", "iterations": 24, "save_every": 3}
    table["augmentation"] = {"affine": 0.03, "gamma": 0.2, "noise": 0.05}
    (tmp_path / "it.toml").write_text(as_toml(table), "utf-8")
    environment = os.environ | {"PYTHONPATH": str(BACKEND), "OMP_NUM_THREADS": "1"}

    def start(folder: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pddnet", "train", "--config", str(tmp_path / "it.toml")]
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / folder), "--device", "cpu", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    whole, cut = start("whole"), start("cut")
    deadline = time.monotonic() + 60
    while len(totals(tmp_path / "cut")) < 8:
        assert time.monotonic() < deadline, "the training did not get to its eighth iteration in a minute"
        assert cut.poll() is None
        time.sleep(0.002)
    cut.kill()
    assert cut.wait() == -signal.SIGKILL
    done = len(totals(tmp_path / "cut"))
    assert 8 <= done < 24
    assert not (tmp_path / "cut" / LAST).exists()
    assert start("cut", "--resume").wait(timeout=60) == 0
    assert whole.wait(timeout=60) == 0
    assert read_history(tmp_path / "cut") == read_history(tmp_path / "whole")
    one, other = (load_trained(tmp_path / name / LAST) for name in ("cut", "whole"))
    assert one.sha256 == other.sha256


def test_resuming_a_finished_training_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    train(config(), dataset, names(dataset), tmp_path / "out", device="cpu")
    before = read_history(tmp_path / "out")
    train(config(), dataset, names(dataset), tmp_path / "out", device="cpu", resume=True)
    assert read_history(tmp_path / "out") == before
    longer = config(iterations=8)
    train(longer, dataset, names(dataset), tmp_path / "out", device="cpu", resume=True)
    assert len(totals(tmp_path / "out")) == 8


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"learning_rate": 0.1}, {"augmentation": Augmentation(affine=0.2)}]
)
def test_another_configuration_does_not_resume(
    dataset: Dataset, tmp_path: Path, changes: dict[str, Any]
) -> None:
    train(config(iterations=2), dataset, names(dataset), tmp_path / "out", device="cpu")
    with pytest.raises(InputError, match="belongs to a training with another configuration or other data"):
        train(config(**changes), dataset, names(dataset), tmp_path / "out", device="cpu", resume=True)


def test_other_cases_do_not_resume_and_a_used_folder_is_not_overwritten(
    dataset: Dataset, tmp_path: Path
) -> None:
    train(config(iterations=2), dataset, names(dataset)[:3], tmp_path / "out", device="cpu")
    with pytest.raises(InputError, match="other data"):
        train(config(), dataset, names(dataset), tmp_path / "out", device="cpu", resume=True)
    with pytest.raises(InputError, match="holds a training already; resume it"):
        train(config(), dataset, names(dataset), tmp_path / "out", device="cpu")


def test_a_training_may_start_from_the_weights_of_another(dataset: Dataset, tmp_path: Path) -> None:
    first = train(config(), dataset, names(dataset), tmp_path / "first", device="cpu")
    onward = config(start_from=str(first), iterations=1, learning_rate=1e-9)
    second = load_trained(train(onward, dataset, names(dataset), tmp_path / "second", device="cpu"))
    for name, tensor in load_trained(first).state.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(second.state[name], tensor, atol=1e-6, rtol=0)
    assert "started from best.pt" in second.training_note


# --- when to stop


def test_it_stops_when_nothing_gets_better(dataset: Dataset, tmp_path: Path) -> None:
    patient = config(
        iterations=50, learning_rate=1e-12, validation=Validation(every=2, pairs=1, patience=2), save_every=50
    )
    train(patient, dataset, names(dataset), tmp_path / "out", device="cpu")
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text("utf-8"))
    assert summary["iteration"] < 50
    assert summary["stopped"] == "no better validation 2 times in a row"
    train(patient, dataset, names(dataset), tmp_path / "out", device="cpu", resume=True)  # stays stopped
    assert len(totals(tmp_path / "out")) == summary["iteration"]


def test_a_loss_that_is_not_finite_ends_it_with_advice(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pddnet.learning import pdd_net

    monkeypatch.setattr(pdd_net, "diffusion", lambda u: u.sum() * float("nan"))
    with pytest.raises(InputError, match="the loss is nan in iteration 1; lower learning_rate"):
        train(config(), dataset, names(dataset), tmp_path / "out", device="cpu")


# --- which cases


def test_cases_for_validation_are_not_trained_on(dataset: Dataset, tmp_path: Path) -> None:
    aside = config(iterations=1, validation=Validation(cases=2, pairs=2))
    train(aside, dataset, names(dataset), tmp_path / "out", device="cpu")
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text("utf-8"))
    assert len(summary["validation_cases"]) == len(summary["training_cases"]) == 2
    assert sorted(summary["validation_cases"] + summary["training_cases"]) == names(dataset)
    with pytest.raises(InputError, match=r"may use 3 case\(s\) and sets 2 aside .* at least 2 must be left"):
        train(aside, dataset, names(dataset)[:3], tmp_path / "other", device="cpu")


def test_the_cases_are_those_named_or_those_of_the_fold_or_all(dataset: Dataset) -> None:
    assert training_cases(config(), dataset) == tuple(names(dataset))
    assert training_cases(config(cases=("case 2", "case 0")), dataset) == ("case 2", "case 0")
    folds = dataset.cross_validation(2, 0)
    assert training_cases(config(fold=2, folds=2), dataset) == folds[1].train
    with pytest.raises(InputError, match="fold is 3; data set tiny has 2"):
        training_cases(config(fold=3, folds=2), dataset)
    with pytest.raises(InputError, match="no case 'case 8'"):
        training_cases(config(cases=("case 8",)), dataset)
    with pytest.raises(InputError, match="both cases and a fold"):
        config(cases=("case 0",), fold=1)


def test_one_labelled_scan_is_not_enough(tmp_path: Path) -> None:
    dataset = Dataset.read(write_dataset(tmp_path, 3, unlabelled=2))
    with pytest.raises(
        InputError, match=r"1 labelled case\(s\) of the 3 it may use; 2 are needed for a pair"
    ):
        train(config(), dataset, names(dataset), tmp_path / "out", device="cpu")


def test_pairs_are_of_two_different_cases_and_drawn_by_the_generator(dataset: Dataset) -> None:
    grid = config().grid
    plain = Augmentation(affine=0.0)
    source = PairSource(GridScans(dataset, grid), names(dataset), True, plain, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    drawn = [source.draw(generator) for _ in range(40)]
    scans = [grid.image(dataset.image(name)) for name in names(dataset)]

    def number(image: torch.Tensor) -> int:
        return next(n for n, scan in enumerate(scans) if torch.equal(scan, image))

    pairs = {(number(p.fixed_image), number(p.moving_image)) for p in drawn}
    assert len(pairs) > 9  # of 12
    assert all(fixed != moving for fixed, moving in pairs)
    hot = drawn[0].fixed_one_hot
    assert hot is not None
    assert hot.shape == (1, 3, *grid.shape)
    torch.testing.assert_close(hot.sum(1), torch.ones(1, *grid.shape))
    assert drawn[0].class_weights is not None
    assert drawn[0].class_weights[0] == pytest.approx(0.15)
    assert len(set(source.some_pairs(12))) == 12


def test_overlap_counts_a_class_by_hand_and_leaves_out_absent_ones() -> None:
    fixed, warped = torch.tensor([[[1, 1, 2, 0]]]), torch.tensor([[[1, 2, 2, 0]]])
    scores = overlap_of(fixed, warped, 4)
    assert scores[0].item() == pytest.approx(2 / 3)
    assert scores[1].item() == pytest.approx(2 / 3)
    assert scores[2].isnan()


# --- TensorBoard


def test_tensorboard_gets_the_same_numbers_and_a_picture(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config(tensorboard=True), dataset, names(dataset), tmp_path / "out", device="cpu")
    logs = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    logs.Reload()
    logged = [event.value for event in logs.Scalars("loss/total")]
    assert logged == pytest.approx(totals(tmp_path / "out"), rel=1e-6)
    assert [event.step for event in logs.Scalars("validation/dice")] == [3, 6]
    pictures = logs.Images("validation pair")
    assert len(pictures) == 2
    assert pictures[0].width > pictures[0].height >= 128  # three panels side by side


def test_without_tensorboard_a_warning_says_so_and_the_training_goes_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = monitors.importlib.util.find_spec
    monkeypatch.setattr(
        monitors.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "tensorboard" else original(name, *more),
    )
    with pytest.warns(UserWarning, match=r"TensorBoard is not installed.*pip install tensorboard"):
        train(config(tensorboard=True, iterations=1), dataset, names(dataset), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "tensorboard").exists()
    assert len(totals(tmp_path / "out")) == 1


# --- the configuration


def test_a_file_is_read_with_its_paths_relative_to_it(tmp_path: Path) -> None:
    table = {**CONFIG, "dataset": "data/d.json", "start_from": "w.pt", "validation": {"every": 7}}
    (tmp_path / "it.toml").write_text(as_toml(table), "utf-8")
    found = read_training_config(tmp_path / "it.toml")
    assert found.dataset == str(tmp_path / "data" / "d.json")
    assert found.start_from == str(tmp_path / "w.pt")
    assert (found.validation.every, found.validation.cases) == (7, 0)
    assert found.grid == TrainingGrid((16, 18, 14), 2.5)
    assert (found.learning_rate, found.augmentation.affine) == (0.01, 0.0375)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown entry colour"),
        ({"grid": {"size": [9, 9]}}, r"grid lacks spacing_mm|grid.size has 2 entries"),
        ({"grid": {"size": [9, 10, 10], "spacing_mm": 1.0}}, "three even sizes of at least 8"),
        ({"iterations": 0}, "counts of at least 1"),
        ({"learning_rate": -1}, "a rate above 0"),
        ({"schedule": "exponential"}, "one of constant, cosine, step"),
        ({"validation": {"cases": 1}}, "no cases or 2 and more"),
        ({"augmentation": {"gama": 0.1}}, "augmentation has the unknown entry gama"),
    ],
)
def test_a_wrong_file_is_refused_with_its_fault(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "it.toml").write_text(as_toml({**CONFIG, "dataset": "d.json", **change}), "utf-8")
    with pytest.raises(InputError, match=message):
        read_training_config(tmp_path / "it.toml")


def test_a_file_that_is_absent_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_training_config(tmp_path / "it.toml")
    (tmp_path / "it.toml").write_text("= 3", "utf-8")
    with pytest.raises(InputError, match="is no TOML file"):
        read_training_config(tmp_path / "it.toml")


def test_the_learning_rate_follows_its_schedule() -> None:
    constant, cosine, step = (
        config(schedule=kind, iterations=600, learning_rate=0.1) for kind in ("constant", "cosine", "step")
    )
    assert {constant.rate(n) for n in (0, 300, 599)} == {0.1}
    assert cosine.rate(0) == pytest.approx(0.1)
    assert cosine.rate(300) == pytest.approx(0.0505)
    assert cosine.rate(600) == pytest.approx(0.001)
    assert [step.rate(n) for n in (0, 399, 400, 499, 500)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


# --- the command


def test_the_command_trains_and_says_how_it_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pddnet.cli import main

    write_dataset(tmp_path, 3)
    (tmp_path / "it.toml").write_text(as_toml({**CONFIG, "dataset": "dataset.json"}), "utf-8")
    arguments = ["train", "--config", str(tmp_path / "it.toml"), "--device", "cpu"]
    assert main([*arguments, "--iterations", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["weights"] == str(tmp_path / "it" / BEST)
    assert report["iteration"] == 2
    assert main(arguments) == 2
    assert "holds a training already" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    out, err = capsys.readouterr()
    assert "6 iterations in" in out
    assert str(tmp_path / "it" / BEST) in out
    assert "iteration 6 of 6" in err


def test_ctrl_c_ends_the_command_with_a_state_to_resume(tmp_path: Path) -> None:
    write_dataset(tmp_path, 3)
    table = {**CONFIG, "dataset": "dataset.json", "iterations": 100_000, "save_every": 100_000}
    (tmp_path / "it.toml").write_text(as_toml(table), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "pddnet", "train", "--config", str(tmp_path / "it.toml"), "--device", "cpu"],
        env=os.environ | {"PYTHONPATH": str(BACKEND), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(totals(tmp_path / "it")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume it to go on from there" in said
    done = len(totals(tmp_path / "it"))
    state = torch.load(tmp_path / "it" / STATE, weights_only=True)
    assert state["standing"]["iteration"] == done >= 2


def test_weights_without_the_mean_field_do_not_run_under_a_preset(dataset: Dataset, tmp_path: Path) -> None:
    chosen = config(settings={**CONFIG["settings"], "mean_field": False}, iterations=1)
    best = train(chosen, dataset, names(dataset), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "preset.toml").exists()
    preset = Preset("mine", "", (CubeLevel(4, 3, 0.3),), weights=str(best))
    with pytest.raises(InputError, match="trained without the mean field; a preset's levels need it"):
        network_of(preset, torch.device("cpu"))
