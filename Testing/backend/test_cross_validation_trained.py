"""Methods that learn: trained once a fold on that fold's scans, kept, resumed, and judged like all others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.small_study import FOLDS, write_dataset
from pddnet import cli
from pddnet.cross_validation import trained
from pddnet.cross_validation.cache import Cache
from pddnet.cross_validation.method_table import ROWS, TABLE_1
from pddnet.cross_validation.methods import Hooks
from pddnet.cross_validation.pairs import pairs_of
from pddnet.cross_validation.runner import Study, run_study
from pddnet.cross_validation.trained import TrainedMethod, Trainings
from pddnet.cross_validation.training_plan import TrainingPlan, covering_grid
from pddnet.data import Dataset
from pddnet.errors import InputError, RegistrationCancelled
from pddnet.geometry import ImageGeometry
from pddnet.learning.registry import create
from pddnet.learning.trainer import SUMMARY
from pddnet.warp import DisplacementField

PLAN = """
iterations = 2
learning_rate = 0.003
[grid]
size = [16, 16, 16]
spacing_mm = 2.5
[validation]
pairs = 1
[methods.pdd-net.settings]
control_points = [4, 4, 4]
labels = [3, 3, 3]
obelisk = {channels = 4, offsets = 4, hidden = 4, groups = 2, edge_channels = 2}
[methods.flownet-c.settings]
channels = [4, 4, 4, 4]
features = {channels = 4, offsets = 4, hidden = 4, groups = 2, edge_channels = 2}
level = {grid_shape = [4, 4, 4], label_shape = [3, 3, 3], reach = [0.4, 0.4, 0.4]}
[methods.label-reg]
learning_rate = 0.0001
[methods.label-reg.settings]
channels = 2
global_channels = 2
levels = 2
"""
BY_NAME = {row.name: row for row in ROWS}


@pytest.fixture
def trainings(tmp_path: Path) -> Trainings:
    (tmp_path / "scans").mkdir()
    file = write_dataset(tmp_path / "scans")
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    return Trainings(Dataset.read(file), file, TrainingPlan.read(plan), tmp_path / "training", "cpu", seed=3)


class TestPlan:
    def test_a_method_and_a_row_change_what_all_have_in_common(self, trainings: Trainings) -> None:
        methods = {"pdd-net": {"learning_rate": 0.1, "settings": {"reduction": "mean"}}}
        methods["pdd-wo-mf"] = {"iterations": 7, "settings": {"diffusion_weight": 0.5}}
        grid = {"size": [16, 16, 16], "spacing_mm": 2.0}
        plan = TrainingPlan({"grid": grid, "iterations": 5}, methods)
        trainings = replace(trainings, plan=plan)
        plain, row = (trainings.config(BY_NAME[name], FOLDS[0]) for name in ("pdd-net", "pdd-wo-mf"))
        assert (plain.iterations, plain.learning_rate, plain.seed, plain.cases) == (5, 0.1, 3, ("d", "e"))
        assert plain.settings == {"reduction": "mean"}
        assert row.settings == {"reduction": "mean", "diffusion_weight": 0.5, "mean_field": False}
        assert (row.iterations, row.method, row.tensorboard) == (7, "pdd-net", False)
        assert replace(trainings, iterations=9).config(BY_NAME["pdd-wo-mf"], FOLDS[0]).iterations == 9

    def test_flownet_c_learns_as_many_classes_as_the_data_set_has(self, trainings: Trainings) -> None:
        assert trainings.config(BY_NAME["flownet-c"], FOLDS[0]).settings["classes"] == 3

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("iterations = ", "is no TOML file"),
            ("methods = 3", "has methods = 3; tables are needed"),
            ("dataset = 'a.json'\n", "names dataset; the benchmark decides that"),
            (
                "[methods.pdd-net]\nseed = 3\ncases = ['a']\n",
                "pdd-net names cases, seed; the benchmark decides",
            ),
        ],
    )
    def test_a_file_that_cannot_be_used_is_refused(self, text: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "plan.toml").write_text(text)
        with pytest.raises(InputError, match=message):
            TrainingPlan.read(tmp_path / "plan.toml")
        with pytest.raises(InputError, match=r"nowhere\.toml cannot be read"):
            TrainingPlan.read(tmp_path / "nowhere.toml")

    def test_an_unknown_setting_is_refused_by_name(self, trainings: Trainings) -> None:
        plan = TrainingPlan({**trainings.plan.common, "learnig_rate": 1.0})
        with pytest.raises(InputError, match=r"the training of pdd-net has the unknown entry learnig_rate"):
            replace(trainings, plan=plan).config(BY_NAME["pdd-net"], FOLDS[0])

    def test_without_a_file_the_grid_covers_every_scan(self, oblique_geometry: ImageGeometry) -> None:
        far = ImageGeometry((100, 90, 80), (1.0, 1.5, 2.0), (500.0, 0.0, 0.0))
        grid = covering_grid([oblique_geometry, far])
        voxels = grid.size[0] * grid.size[1] * grid.size[2]
        assert 96**3 <= voxels < 1.6 * 96**3
        for scan in (oblique_geometry, far):
            index = grid.geometry(scan).to_index(scan.corners())
            assert (index > -0.51).all()
            assert (index < torch.tensor(grid.size).numpy() - 0.49).all()
        small = covering_grid([oblique_geometry])
        assert small.spacing_mm == 0.75  # no finer than the scan
        assert max(small.size) < 96


class TestTraining:
    def test_it_is_trained_once_a_fold_and_kept(
        self, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cases = _spied(monkeypatch)
        method = TrainedMethod(BY_NAME["pdd-net"], trainings)
        first, second = (method.for_fold(fold, Hooks()) for fold in FOLDS)
        assert cases == [fold.train for fold in FOLDS]
        assert first.weights != second.weights
        again = method.for_fold(FOLDS[0], Hooks())
        assert len(cases) == 2
        assert again.identity == first.identity

    def test_instance_optimisation_takes_the_same_weights(
        self, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cases = _spied(monkeypatch)
        plain, fitted = (
            TrainedMethod(BY_NAME[name], trainings).for_fold(FOLDS[0], Hooks())
            for name in ("pdd-net", "pdd+inst")
        )
        assert len(cases) == 1
        assert plain.weights == fitted.weights
        assert plain.identity != fitted.identity

    def test_an_ablation_and_another_seed_are_other_trainings(
        self, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cases = _spied(monkeypatch)
        for name in ("pdd-net", "pdd-wo-nl"):
            TrainedMethod(BY_NAME[name], trainings).for_fold(FOLDS[0], Hooks())
        TrainedMethod(BY_NAME["pdd-net"], replace(trainings, seed=4)).for_fold(FOLDS[0], Hooks())
        TrainedMethod(BY_NAME["pdd-net"], replace(trainings, iterations=3)).for_fold(FOLDS[0], Hooks())
        assert len(cases) == 4

    def test_a_cancelled_training_is_resumed_and_ends_with_the_same_weights(
        self, trainings: Trainings
    ) -> None:
        asked: list[int] = []

        def after_one() -> bool:
            asked.append(1)
            return len(asked) > 1

        method = TrainedMethod(BY_NAME["pdd-net"], replace(trainings, iterations=3))
        with pytest.raises(RegistrationCancelled):
            method.for_fold(FOLDS[0], Hooks(cancelled=after_one))
        (folder,) = trainings.folder.iterdir()
        assert not (folder / SUMMARY).exists()
        resumed = method.for_fold(FOLDS[0], Hooks())
        assert json.loads((folder / SUMMARY).read_text())["iteration"] == 3
        elsewhere = replace(trainings, iterations=3, folder=trainings.folder / "elsewhere")
        whole = TrainedMethod(BY_NAME["pdd-net"], elsewhere).for_fold(FOLDS[0], Hooks())
        assert resumed.weights == whole.weights

    def test_changed_training_scans_are_another_training(
        self, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cases = _spied(monkeypatch)
        method = TrainedMethod(BY_NAME["pdd-net"], trainings)
        method.for_fold(FOLDS[0], Hooks())
        path = trainings.dataset.case("d").image
        path.write_bytes(trainings.dataset.case("b").image.read_bytes())
        method.for_fold(FOLDS[0], Hooks())
        assert cases == [FOLDS[0].train] * 2

    def test_untrained_it_is_the_network_that_a_training_begins_with(self, trainings: Trainings) -> None:
        method = TrainedMethod(BY_NAME["pdd-untrained"], trainings)
        ready = method.for_fold(FOLDS[0], Hooks())
        assert not method.training
        assert not trainings.folder.exists()
        torch.manual_seed(3)
        begun = create("pdd-net", trainings.config(BY_NAME["pdd-net"], FOLDS[0]).settings)
        found = ready.model.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in begun.state_dict().items())

    def test_only_pdd_net_can_be_fitted_to_a_pair(self, trainings: Trainings, tmp_path: Path) -> None:
        row = replace(BY_NAME["label-reg"], trained=False, instance_optimisation=True)
        ready = TrainedMethod(row, trainings).for_fold(FOLDS[0], Hooks())
        with pytest.raises(InputError, match="label-reg gives no probabilities to optimise"):
            ready.register(trainings.dataset.image("a"), trainings.dataset.image("b"), tmp_path)


def test_every_row_of_ours_goes_through_the_harness(trainings: Trainings, tmp_path: Path) -> None:
    """Two iterations each, on one pair of the second fold."""
    pair = pairs_of(FOLDS)[-1]
    study = Study(trainings.dataset, FOLDS, [pair], Cache(tmp_path / "pairs"))
    contenders = [TrainedMethod(row, trainings) for row in ROWS]
    results = run_study(study, contenders)
    assert {result.name: result.failures for result in results} == {row.name: {} for row in ROWS}
    for result in results:
        (scores,) = result.scores.values()
        assert [score.label for score in scores.labels] == [1, 2]
        assert scores.seconds > 0
    keys = [path.name for path in trainings.folder.iterdir()]
    assert (
        len(keys) == 8
    )  # ten rows are trained or taken as they are; pdd-net and pdd+inst share one training
    again = run_study(study, contenders)
    assert again == results


def test_the_displacement_of_a_network_is_brought_to_the_scans(trainings: Trainings, tmp_path: Path) -> None:
    """A model that moves everything by a known fraction of the box is judged as that shift."""
    ready = TrainedMethod(BY_NAME["label-reg"], trainings).for_fold(FOLDS[1], Hooks())
    fixed, moving = trainings.dataset.image("d"), trainings.dataset.image("e")
    found = ready.register(fixed, moving, tmp_path).transform
    assert isinstance(found, DisplacementField)
    images = [ready.grid.image(scan) for scan in (fixed, moving)]
    expected = ready.grid.displacement(
        ready.model.displacement(images[0], images[1]), fixed.geometry, moving.geometry
    )
    assert torch.equal(found.vectors, expected.vectors)
    assert found.fixed_geometry == fixed.geometry


def test_the_rows_of_the_papers_table_have_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    file, plan = write_dataset(tmp_path / "scans"), tmp_path / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    given = ["--dataset", str(file), "--out", str(tmp_path / "out"), "--training", str(plan), "--pairs", "1"]
    options = ["--methods", "table-1", "--reference", "pdd-net", "--iterations", "1", "--json"]
    assert cli.main(["benchmark", *given, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [method["name"] for method in report["methods"]] == ["before", *TABLE_1]
    titles = ["Label-Reg", "FlowNet-C", "pdd+SSC", "pdd w/o MF", "pdd w/o NL", "pdd-net", "pdd+inst."]
    assert [method["title"] for method in report["methods"]][1:8] == titles
    for method in report["methods"][:8]:
        assert len(method["scores"]) == 1, method["failures"]


def _spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The training scans of each training that begins."""
    cases: list[tuple[str, ...]] = []
    train = trained.train

    def spy(config: Any, dataset: Any, names: Any, folder: Any, **more: Any) -> Path:
        cases.append(tuple(names))
        return train(config, dataset, names, folder, **more)

    monkeypatch.setattr(trained, "train", spy)
    return cases
