"""The scripts that write docs/results.md: sections, tables, rank correlation, reliability, what is counted."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pddnet import cli
from pddnet.baselines.method import MethodRun
from pddnet.config import load_preset
from pddnet.cross_validation.method_table import Options, contenders_of
from pddnet.cross_validation.pairs import pairs_of
from pddnet.cross_validation.trained import TrainedMethod, Trainings
from pddnet.cross_validation.training_plan import TrainingPlan
from pddnet.data import Case, Dataset, Fold
from pddnet.learning.registry import create
from pddnet.synthetic import synthetic_deformation, synthetic_patient
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, resample

FOLDER = Path(__file__).parents[1] / "results"
sys.path.insert(0, str(FOLDER))  # the scripts import each other as they do when they are run
try:
    import ablation
    import canvas
    import known_truth
    import learning
    import misaligned
    import peer_programs
    import peers
    import report
    import uncertainty
finally:
    sys.path.remove(str(FOLDER))

TEXT = "# Title\n\n<!-- one: begin -->\nold\n<!-- one: end -->\n\nprose\n\n<!-- two: begin -->\n<!-- two: end -->\n"
GRID = canvas.canvas((16, 14, 12), 3.0)


def subject(name: str, data: torch.Tensor, labels: torch.Tensor) -> canvas.Subject:
    return canvas.Subject(name, Volume(data, GRID), LabelMap(labels, GRID), (0.0, 1.0))


def box_subject(name: str, shift: int = 0) -> canvas.Subject:
    labels = torch.zeros(GRID.shape, dtype=torch.int16)
    labels[2:10, 3:11, 3 + shift : 11 + shift] = 1
    labels[0, 0, :5] = 2  # too small to be counted
    return subject(name, labels.float(), labels)


class TestSections:
    def test_a_section_is_replaced_and_the_rest_stays(self) -> None:
        once = report.replaced(TEXT, "one", ["new", "lines"])
        assert "old" not in once
        assert "<!-- one: begin -->\n\nnew\nlines\n\n<!-- one: end -->\n\nprose" in once
        both = report.replaced(once, "two", ["more"])
        assert "new\nlines" in both
        assert report.replaced(both, "two", ["more"]) == both

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<!-- a: begin -->",
            "<!-- a: end -->\n<!-- a: begin -->",
            2 * "<!-- a: begin --><!-- a: end -->",
        ],
    )
    def test_missing_doubled_or_swapped_markers_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="section 'a' needs"):
            report.replaced(text, "a", ["x"])

    def test_the_report_has_a_place_for_every_section(self) -> None:
        text = (FOLDER.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
        names = ["abdomen", "brain", "hippocampus", "peers abdomen", "peers brain", "ablation", "regularity"]
        learned = [f"learning {task.name}" for task in learning.TASKS]
        for name in (*names, "uncertainty", *learned):
            assert report.replaced(text, name, ["x"]) != text


class TestTables:
    def test_a_table_has_a_rule_below_its_head(self) -> None:
        lines = report.table(["a", "b"], [["1", "2"], ["3", "4"]])
        assert lines == ["| a | b |", "| --- | --- |", "| 1 | 2 |", "| 3 | 4 |"]

    def test_a_row_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="a row has 1 cells and the head 2"):
            report.table(["a", "b"], [["1"]])

    def test_an_absent_program_is_reported_as_absent(self) -> None:
        pair = canvas.Pair(box_subject("f"), box_subject("m"))
        row = peers.row_of(peers.Run("deeds", pair, None), 2)
        assert row == ["deeds", "m onto f", "absent", "", "", "", ""]
        assert len(row) == len(peers.HEAD)

    def test_dice_by_label_is_in_the_order_of_the_pairs(self) -> None:
        there = canvas.Judgement({1: 0.5, 2: 0.25}, 0.1, 0.0)
        back = canvas.Judgement({1: 0.75}, 0.1, 0.0)
        pair = canvas.Pair(box_subject("f"), box_subject("m"))
        runs = [peers.Run("p", pair, there, 1.0), peers.Run("p", pair, back, 1.0), peers.Run("q", pair, None)]
        lines = peers.by_label(runs, {1: "liver"})
        assert lines[2:] == ["| liver | 0.50 / 0.75 |", "| 2 | 0.25 / - |"]


class TestUncertainty:
    def test_ranks_share_ties(self) -> None:
        np.testing.assert_array_equal(uncertainty.ranks(np.array([3.0, 1.0, 3.0, 2.0])), [2.5, 0, 2.5, 1])

    def test_spearman_is_one_for_any_rising_function_and_minus_one_for_a_falling_one(self) -> None:
        values = np.random.default_rng(0).normal(size=50)
        assert uncertainty.spearman(values, np.exp(3 * values)) == pytest.approx(1)
        assert uncertainty.spearman(values, -(values**3)) == pytest.approx(-1)

    def test_spearman_is_the_formula_of_squared_rank_differences_without_ties(self) -> None:
        a, b = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
        assert uncertainty.spearman(a, b) == pytest.approx(1 - 6 * 4 / (5 * 24))

    def test_errors_as_large_as_reported_lie_on_the_diagonal(self) -> None:
        generator = np.random.default_rng(0)
        std = generator.uniform(0.5, 4.0, 200_000)
        error = std * np.sqrt((generator.normal(size=(len(std), 3)) ** 2).sum(1) / 3)
        reported, found = uncertainty.reliability(std, error, 8)
        np.testing.assert_allclose(found, reported, rtol=0.02)
        assert (np.diff(reported) > 0).all()
        assert abs(uncertainty.reliability(std, 2 * error, 8)[1] / reported - 2).max() < 0.05


class TestCanvas:
    def test_its_centre_is_the_origin(self) -> None:
        np.testing.assert_allclose(GRID.centre, 0, atol=1e-9)
        assert GRID.size == (16, 14, 12)

    def test_the_centre_of_a_field_of_view_comes_to_the_centre_with_air_around(self) -> None:
        data = torch.full((5, 5, 5), -1000.0)
        data[2, 2, 2] = 100.0
        there = canvas.canvas((5, 5, 5), 3.0).cropped((40, -7, 3), (5, 5, 5))
        labels = LabelMap((data > 0).to(torch.int16), there)
        odd = canvas.canvas((9, 9, 9), 3.0)
        placed = canvas.placed("p", Volume(data, there), labels, odd, (-125.0, 275.0))
        assert float(placed.scan.data[4, 4, 4]) == pytest.approx(100.0)
        assert int(placed.labels.data[4, 4, 4]) == 1
        assert float(placed.scan.data[0, 0, 0]) == -1000.0

    def test_small_labels_are_not_counted(self) -> None:
        assert canvas.counted_labels(canvas.Pair(box_subject("f"), box_subject("m"))) == [1]

    def test_the_right_shift_is_judged_perfect_and_none_is_not(self) -> None:
        pair = canvas.Pair(box_subject("f"), box_subject("m", shift=2))
        right = canvas.judged(pair, AffineTransform.translation((6.0, 0.0, 0.0)))
        assert right.dice == {1: pytest.approx(1.0)}
        assert right.log_jacobian_std == pytest.approx(0, abs=1e-5)
        assert canvas.judged(pair, AffineTransform.identity()).mean_dice == pytest.approx(0.75)

    def test_a_mirror_folds_everything(self) -> None:
        pair = canvas.Pair(box_subject("f"), box_subject("m"))
        mirrored = AffineTransform(np.diag([-1.0, 1.0, 1.0, 1.0]))
        assert canvas.judged(pair, mirrored).folding_percent == pytest.approx(100.0)


class TestKnownTruth:
    def test_contrast_and_noise_change_the_values_and_not_the_place(self) -> None:
        scan = Volume(torch.linspace(-1000, 1000, math.prod(GRID.shape)).view(GRID.shape), GRID)
        for modality in ("ct", "mr"):
            found = known_truth.disturbed(scan, modality, 1)
            assert found.geometry == scan.geometry
            assert (found.data - scan.data).abs().max() > 10
            assert torch.equal(found.data, known_truth.disturbed(scan, modality, 1).data)

    def test_the_truth_leads_from_the_deformed_scan_to_the_scan(self) -> None:
        scan = Volume(torch.rand(GRID.shape), GRID)
        recipe = known_truth.Recipe("r", "generic", lambda: scan, "mr", 4.0, 20.0)
        pair = recipe.pair(3)
        assert pair.moving is scan
        expected = known_truth.disturbed(synthetic_deformation(GRID, 3, 4.0, 20.0).warp(scan), "mr", 3)
        assert torch.equal(pair.fixed.data, expected.data)


class Shifted:
    """A method that finds a shift, mm LPS, or is absent."""

    name = "shifted"

    def __init__(self, shift: tuple[float, float, float] | None) -> None:
        self.shift, self.calls = shift, 0

    def absent(self) -> str | None:
        return "it was left out" if self.shift is None else None

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> MethodRun:
        assert self.shift is not None
        assert fixed.geometry == moving.geometry
        assert not any(folder.iterdir())
        self.calls += 1
        return MethodRun(AffineTransform.translation(self.shift), 1.5, None)


class TestPrograms:
    def test_what_is_not_found_is_absent(self, tmp_path: Path) -> None:
        programs = peer_programs.all_programs(["fast"], "", str(tmp_path), 2)
        absent = {program.name for program in programs if program.method.absent()}
        assert absent == {"ANTs SyN", "Greedy", "convexAdam", "deeds"}
        assert [program.name for program in programs if not program.method.absent()] == ["pddnet fast"]
        assert {program.name for program in programs if program.windowed} == {"ANTs SyN", "Greedy"}

    def test_our_command_line_finds_the_shift_of_a_patient(self, tmp_path: Path) -> None:
        made = synthetic_patient(3, (32, 28, 30), 12.0)
        shift = AffineTransform.translation((12.0, -12.0, 0.0))
        fixed = resample(made.ct, made.ct.geometry, shift)
        own = peer_programs.OwnCommand("fast", peer_programs.Peers(threads=1))
        run = own.register(fixed, made.ct, tmp_path)
        middle = torch.from_numpy(made.ct.geometry.centre)[None]
        found = run.transform.apply(middle) - middle
        np.testing.assert_allclose(found[0], (12, -12, 0), atol=4)
        assert run.seconds > 0

    def test_a_recorded_run_is_not_run_again(self, tmp_path: Path) -> None:
        pair = canvas.Pair(box_subject("f"), box_subject("m", shift=2))
        method = Shifted((6.0, 0.0, 0.0))
        program = peer_programs.Program("p", method)
        file = tmp_path / "record.json"
        once, again = (peers.Record(file).measured(program, pair) for _ in range(2))
        assert method.calls == 1
        assert peers.row_of(once, 2) == peers.row_of(again, 2)
        assert again.judgement is not None
        assert again.judgement.dice == {1: pytest.approx(1.0)}
        absent = peers.Record(file).measured(peer_programs.Program("q", Shifted(None)), pair)
        assert absent.judgement is None

    def test_windowed_scans_hold_the_window(self) -> None:
        pair = canvas.Pair(box_subject("f"), box_subject("m"))
        loud = canvas.Subject("f", Volume(5 * pair.fixed.scan.data - 2, GRID), pair.fixed.labels, (0.0, 1.0))
        fixed, _ = peer_programs.scans(canvas.Pair(loud, pair.moving), windowed=True)
        assert sorted(fixed.data.unique().tolist()) == [0.0, 1.0]
        fixed, _ = peer_programs.scans(canvas.Pair(loud, pair.moving), windowed=False)
        assert sorted(fixed.data.unique().tolist()) == [-2.0, 3.0, 8.0]

    def test_the_ablation_ends_with_the_whole_recipe(self) -> None:
        preset = load_preset("abdomen-ct")
        variants = list(ablation.recipes(preset))
        assert variants[-1].levels == preset.levels
        assert variants[-1].body_weights == preset.body_weights
        assert not variants[0].body_weights
        assert not any(level.symmetric for level in variants[0].lattice_levels)
        assert len({variant.name for variant in variants}) == len(variants)


class TestMisaligned:
    def one(self) -> misaligned.Subject:
        made = box_subject("one")
        return misaligned.Subject("one", made.scan, made.labels)

    @pytest.mark.parametrize("change", list(misaligned.changes(0.1)), ids=lambda change: change.name)
    def test_a_change_is_undone_by_its_own_matrix(self, change: misaligned.Change) -> None:
        pair = misaligned.Pair(self.one(), change.applied(self.one()), "fast")
        truth = change.of(pair.fixed.scan.geometry)
        whole = change.kept == (0.0, 1.0)
        assert misaligned.overlap(pair, AffineTransform(truth)) > (0.99 if whole else 0.5)
        assert misaligned.off_by(pair.fixed.scan.geometry, truth, truth) == 0
        if change.name not in ("none", "lower half", "upper half"):
            assert misaligned.off_by(pair.fixed.scan.geometry, np.eye(4), truth) > 1
            assert misaligned.overlap(pair, AffineTransform.identity()) < 0.95

    def test_half_a_field_of_view_is_the_lower_half_whichever_way_the_axis_runs(self) -> None:
        lower = next(change for change in misaligned.changes(1.0) if change.name == "lower half")
        scan = self.one().scan
        turned = Volume(scan.data.flip(0), misaligned._carried(scan.geometry, np.diag([1.0, 1.0, -1.0, 1.0])))
        for given in (scan, turned):
            part = lower.applied(misaligned.Subject("x", given, self.one().labels)).scan.geometry
            assert part.centre[2] < given.geometry.centre[2]
            assert part.size[2] == given.geometry.size[2] // 2


class TestLearning:
    def test_the_hippocampus_data_set_is_60_scans_named_relative_to_its_file(
        self, shared: Path, tmp_path: Path
    ) -> None:
        file = learning.hippocampus_dataset(shared / "data", tmp_path / "deep" / "dataset.json")
        entries = json.loads(file.read_text(encoding="utf-8"))["cases"]
        assert not any(Path(entry[kind]).is_absolute() for entry in entries for kind in ("image", "labels"))
        dataset = Dataset.read(file)
        assert len(dataset.cases) == 60
        assert dataset.labels("001").labels == [1, 2]
        assert dataset.labels("001").geometry.is_close(dataset.image("001").geometry)
        assert len(pairs_of(dataset.cross_validation(3, 0))) == 3 * 20 * 19

    def test_a_folder_without_scans_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="holds no scans; name their folder with --data"):
            learning.hippocampus_dataset(tmp_path, tmp_path / "dataset.json")

    @pytest.mark.parametrize("task", learning.TASKS, ids=lambda task: task.name)
    def test_each_tasks_methods_are_known_and_its_settings_make_their_networks(
        self, task: learning.Task, tmp_path: Path
    ) -> None:
        dataset = Dataset("d", (Case("a", tmp_path, None), Case("b", tmp_path, None)), {1: "one", 2: "two"})
        plan = TrainingPlan.read(task.plan)
        trainings = Trainings(dataset, tmp_path / "d.json", plan, tmp_path, "cpu")
        contenders = contenders_of(task.methods.split(","), Options("cpu", trainings))
        assert task.reference in {contender.name for contender in contenders}
        rows = [contender.row for contender in contenders if isinstance(contender, TrainedMethod)]
        assert len(rows) >= 7
        for row in rows:
            config = trainings.config(row, Fold(("a",), ("b",)))
            assert create(config.method, config.settings).config()

    def test_the_command_is_one_that_pddnet_understands(self, tmp_path: Path) -> None:
        for task in learning.TASKS:
            arguments = learning.command(task, tmp_path / "d.json", tmp_path / "out", ["--iterations", "5"])
            parsed = cli._parser().parse_args(arguments)
            assert parsed.command == "benchmark"
            assert (parsed.folds, parsed.pairs, parsed.iterations) == (3, task.pairs, 5)
            assert parsed.training.is_file()

    def test_the_tables_of_the_command_become_the_section(
        self, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called: list[list[str]] = []

        def benchmark(arguments: list[str]) -> int:
            called.append(arguments)
            out = Path(arguments[arguments.index("--out") + 1])
            out.mkdir(parents=True)
            (out / "table.md").write_text("| method |\n| --- |\n| pdd-net |\n", encoding="utf-8")
            return 0

        results = tmp_path / "results.md"
        results.write_text("<!-- learning hippocampus: begin -->\nold\n<!-- learning hippocampus: end -->\n")
        places = ["--data", str(shared / "data"), "--out", str(results), "--record", str(tmp_path / "record")]
        monkeypatch.setattr(
            sys, "argv", ["learning.py", "--only", "hippocampus", "--iterations", "7", *places]
        )
        monkeypatch.setattr(cli, "main", benchmark)
        learning.main()
        assert len(called) == 1
        assert called[0][-2:] == ["--iterations", "7"]
        lines = results.read_text(encoding="utf-8").splitlines()
        assert lines[4:7] == ["| method |", "| --- |", "| pdd-net |"]
        monkeypatch.setattr(cli, "main", lambda _arguments: 2)
        with pytest.raises(SystemExit):
            learning.main()
