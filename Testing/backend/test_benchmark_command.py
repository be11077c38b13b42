"""`pddnet benchmark` and `pddnet dataset synthetic`: what they write and print, what they refuse, how they go on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.small_study import FOLDS, Fake, write_dataset
from pddnet import cli
from pddnet.config import available_presets
from pddnet.cross_validation import method_table
from pddnet.cross_validation.method_table import Options, contenders_of
from pddnet.cross_validation.trained import Trainings
from pddnet.cross_validation.training_plan import TrainingPlan
from pddnet.cross_validation.untrained import PresetMethod
from pddnet.data import Dataset
from pddnet.interop.simpleitk import read_label_map
from pddnet.published_weights import CheckpointError
from pddnet.synthetic import ORGAN_NAMES, synthetic_patient

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`pddnet benchmark` on the boxes, its results in tmp_path/out; options replace or add to these."""
    (tmp_path / "scans").mkdir()
    file = write_dataset(tmp_path / "scans")

    def benchmark(*more: str, dataset: Path = file, methods: str = "identity") -> int:
        given = ["--dataset", str(dataset), "--methods", methods, "--out", str(tmp_path / "out")]
        return cli.main(["benchmark", *given, "--device", "cpu", *more])

    return benchmark


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A method "fast" that knows the answer, in place of the preset."""
    fake = Fake("fast", "truth")
    makers = method_table._makers
    monkeypatch.setattr(method_table, "_makers", lambda options: makers(options) | {"fast": lambda: fake})
    return fake


class TestBenchmark:
    def test_it_writes_tables_of_all_pairs_and_prints_them(
        self, run: Run, truth: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("--reference", "identity", methods="identity, FAST") == 0
        printed = capsys.readouterr()
        assert printed.out.startswith((tmp_path / "out" / "table.md").read_text(encoding="utf-8"))
        assert printed.out.splitlines()[-1] == f"tables and results are in {tmp_path / 'out'}"
        assert "| the fast | 100.0 | 100.0 | 100.0±0.0 |" in printed.out
        report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
        assert [method["name"] for method in report["methods"]] == ["before", "identity", "fast"]
        assert [len(method["scores"]) for method in report["methods"]] == [8, 8, 8]
        assert report["methods"][2]["comparison"]["p"] == pytest.approx(2 / 2**8)
        assert report["folds"] == [{"train": list(f.train), "test": list(f.test)} for f in FOLDS]
        assert report["options"]["device"] == "cpu"
        assert "100% done" in printed.err
        assert len(truth.calls) == 8

    def test_json_is_what_the_file_holds_and_nothing_else(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("--json", "--pairs", "3") == 0
        report = json.loads(capsys.readouterr().out)
        assert report == json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
        assert report["pairs"] == 3

    def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(
        self, run: Run, truth: Fake, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupt(calls: int) -> None:
            if calls == 4:
                os.kill(os.getpid(), signal.SIGINT)

        truth.before = interrupt
        assert run(methods="fast") == 130
        said = capsys.readouterr().err.splitlines()[-1]
        assert said == (
            "pddnet benchmark: cancelled; what was measured is kept, and the same command goes on from there"
        )
        truth.before = None
        assert run(methods="fast") == 0
        assert len(truth.calls) == 8

    def test_folds_are_drawn_where_the_data_set_prescribes_none(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bare = write_dataset(tmp_path / "scans", folds=None)
        assert run("--folds", "2", "--seed", "4", dataset=bare) == 0
        report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
        assert sorted(name for fold in report["folds"] for name in fold["test"]) == ["a", "b", "c", "d", "e"]
        assert report["pairs"] == 8
        assert run(dataset=bare) == 2
        assert "5 labelled cases for 3 folds" in capsys.readouterr().err

    def test_a_failure_is_listed_and_the_command_succeeds(
        self, run: Run, truth: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        truth.found = "it broke"
        assert run("--pairs", "1", methods="fast") == 0
        (_, fast) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["methods"]
        assert fast["failures"] == [
            {"fold": 1, "fixed": "a", "moving": "b", "message": "RuntimeError: it broke"}
        ]
        assert "* Failed: the fast, b onto a (fold 1): RuntimeError: it broke" in capsys.readouterr().out

    def test_a_preset_registers_and_says_what_it_took(self, run: Run, tmp_path: Path) -> None:
        assert run("--pairs", "1", methods="abdomen-ct") == 0
        before, preset = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))[
            "methods"
        ]
        assert preset["summary"]["dice"]["mean"] > before["summary"]["dice"]["mean"] + 0.1
        assert preset["summary"]["seconds"]["mean"] > 0
        assert before["summary"]["peak_mb"] is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--methods", "fats"], "method 'fats' is not known; choose among before, identity, abdomen-ct"),
            (["--methods", " ,"], "no method is named; choose among"),
            (
                ["--reference", "fast"],
                "reference 'fast' is not among the methods; choose one of before, identity",
            ),
            (["--folds", "3"], "folds is 3; data set boxes prescribes 2: leave --folds out"),
            (["--pairs", "9"], "pairs is 9; the folds have 8 pairs"),
            (["--dataset", "nowhere.json"], "nowhere.json does not exist"),
            (["--device", "tpu"], "tpu"),
        ],
    )
    def test_wrong_options_are_refused_in_a_sentence(
        self, run: Run, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*options) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_test_scans_need_labels(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cases = [{"name": n, "image": f"{n}.nii.gz", "labels": f"{n}-labels.nii.gz"} for n in "abcde"]
        del cases[1]["labels"]
        assert run(dataset=write_dataset(tmp_path / "scans", cases=cases)) == 2
        assert "the test case b has no label map" in capsys.readouterr().err


@pytest.fixture
def options(tmp_path: Path) -> Options:
    (tmp_path / "scans").mkdir()
    file = write_dataset(tmp_path / "scans")
    dataset = Dataset.read(file)
    return Options(
        "cpu", Trainings(dataset, file, TrainingPlan.default(dataset), tmp_path / "training", "cpu")
    )


class TestMethodTable:
    def test_before_comes_first_and_nothing_twice(self, options: Options) -> None:
        found = contenders_of(["fast", "identity", "FAST ", "before"], options)
        assert [method.name for method in found] == ["before", "fast", "identity"]

    def test_presets_stand_for_all_presets(self, options: Options) -> None:
        found = contenders_of(["presets"], options)
        assert [method.name for method in found] == ["before", *available_presets()]

    def test_a_preset_whose_weights_cannot_be_had_is_absent(
        self, options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nothing(*_: object) -> None:
            raise CheckpointError("the weights cannot be fetched; check the network")

        monkeypatch.setattr("pddnet.published.load_network", nothing)
        learned, made_by_hand = contenders_of(["pdd-net-2019", "fast"], options)[1:]
        assert learned.absent() == "the weights cannot be fetched; check the network"
        assert made_by_hand.absent() is None

    def test_a_presets_identity_tells_its_settings(self, options: Options) -> None:
        fast, generic = contenders_of(["fast", "generic"], options)[1:]
        assert isinstance(fast, PresetMethod)
        identities = [method.for_fold(FOLDS[0], None).identity for method in (fast, generic)]  # type: ignore[arg-type]
        assert identities[0]["preset"] != identities[1]["preset"]
        assert json.loads(json.dumps(identities[0])) == identities[0]


class TestSyntheticDataset:
    def test_it_is_a_data_set_of_different_patients(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "made"
        sizes = ["--cases", "3", "--size", "16x14x20", "--spacing", "20", "--seed", "7"]
        assert cli.main(["dataset", "synthetic", "--out", str(out), *sizes]) == 0
        assert (
            capsys.readouterr().out.strip() == f"3 synthetic patients; the data set is {out / 'dataset.json'}"
        )
        dataset = Dataset.read(out / "dataset.json")
        assert [case.name for case in dataset.cases] == ["patient-007", "patient-008", "patient-009"]
        assert dataset.label_names == ORGAN_NAMES
        patient = synthetic_patient(8, (16, 14, 20), 20.0)
        assert torch.equal(dataset.image("patient-008").data, patient.ct.data)
        assert torch.equal(dataset.labels("patient-008").data, patient.labels.data)
        assert not torch.equal(dataset.labels("patient-007").data, patient.labels.data)
        assert read_label_map(out / "patient-009-organs.nii.gz").geometry == patient.labels.geometry
        made = json.loads((out / "patients.json").read_text(encoding="utf-8"))
        assert made["patient-008"]["seed"] == 8

    def test_one_patient_is_no_data_set(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["dataset", "synthetic", "--out", str(tmp_path / "made"), "--cases", "1"]) == 2
        assert "cases is 1; a registration needs two scans" in capsys.readouterr().err
        assert not (tmp_path / "made").exists()

    def test_cancelled_it_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupted(*arguments: object, **more: object) -> object:
            os.kill(os.getpid(), signal.SIGINT)
            return synthetic_patient(*arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr("pddnet.synthetic_dataset.synthetic_patient", interrupted)
        sizes = ["--cases", "2", "--size", "16x14x20", "--spacing", "20"]
        assert cli.main(["dataset", "synthetic", "--out", str(tmp_path / "made"), *sizes]) == 130
        assert "cancelled; nothing was written" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
