"""A study measures every method on every pair once, goes on where it stopped, and lists what failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.small_study import FOLDS, SHIFTS, Fake, ScansOnDisk, write_scans
from pddnet.cross_validation.cache import Cache
from pddnet.cross_validation.pairs import ScanPair, pairs_of
from pddnet.cross_validation.runner import MethodResult, Study, run_study
from pddnet.errors import RegistrationCancelled
from pddnet.interop.simpleitk import read_volume, write_volume
from pddnet.progress import Progress

PAIRS = pairs_of(FOLDS)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "scans").mkdir()
    scans = ScansOnDisk(write_scans(tmp_path / "scans"))
    return Study(scans, FOLDS, PAIRS, Cache(tmp_path / "out" / "pairs"))


def kept(study: Study) -> list[Path]:
    return sorted(study.cache.folder.iterdir())


def test_the_truth_scores_one_and_nothing_what_the_shift_leaves(study: Study) -> None:
    nothing, truth = run_study(study, [Fake("nothing", "nothing"), Fake("truth", "truth")])
    assert list(truth.scores) == list(nothing.scores) == list(PAIRS)
    for pair in PAIRS:
        off = abs(SHIFTS[pair.fixed] - SHIFTS[pair.moving])
        assert truth.scores[pair].dice == 1.0
        assert [s.dice for s in nothing.scores[pair].labels] == pytest.approx([(5 - off) / 5, (8 - off) / 8])
    assert (truth.scores[PAIRS[0]].seconds, truth.scores[PAIRS[0]].peak_mb) == (2.0, None)
    assert (nothing.title, nothing.failures, nothing.absent) == ("the nothing", {}, None)


def test_a_second_run_gives_the_same_and_registers_nothing(study: Study) -> None:
    first = run_study(study, [Fake("truth", "truth"), Fake("nothing", "nothing")])
    again = [Fake("truth", "truth"), Fake("nothing", "nothing")]
    assert run_study(study, again) == first
    assert [fake.calls for fake in again] == [[], []]
    assert len(kept(study)) == 2 * len(PAIRS)


def test_a_deleted_file_is_measured_again_and_no_other(study: Study) -> None:
    first = run_study(study, [Fake("truth", "truth")])
    names = kept(study)
    names[3].unlink()
    again = Fake("truth", "truth")
    assert run_study(study, [again]) == first
    assert len(again.calls) == 1
    assert kept(study) == names


def test_an_interrupted_run_goes_on_where_it_stopped(study: Study) -> None:
    def interrupt(calls: int) -> None:
        if calls == 3:
            raise KeyboardInterrupt

    broken = Fake("truth", "truth", before=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, [broken])
    assert len(kept(study)) == len(broken.calls) == 3
    assert all(json.loads(path.read_text())["scores"] for path in kept(study))  # no half files
    rest = Fake("truth", "truth")
    (result,) = run_study(study, [rest])
    assert len(rest.calls) == len(PAIRS) - 3
    assert list(result.scores) == list(PAIRS)


def test_it_stops_between_pairs_when_it_is_asked_to(study: Study) -> None:
    fake = Fake("truth", "truth")
    with pytest.raises(RegistrationCancelled, match="what was measured is kept"):
        run_study(replace(study, cancelled=lambda: len(fake.calls) >= 2), [fake])
    assert len(fake.calls) == len(kept(study)) == 2


def test_a_method_that_is_cancelled_inside_ends_the_run(study: Study) -> None:
    def cancel(_: int) -> None:
        raise RegistrationCancelled("stop")

    with pytest.raises(RegistrationCancelled, match="stop"):
        run_study(study, [Fake("truth", "truth", before=cancel)])


@pytest.mark.parametrize("change", ["name", "settings", "image", "labels", "counted"])
def test_whatever_the_result_depends_on_makes_it_new(study: Study, change: str) -> None:
    run_study(study, [Fake("truth", "truth", {"levels": 3})])
    again = Fake(
        "other" if change == "name" else "truth", "truth", {"levels": 4 if change == "settings" else 3}
    )
    expected = len(PAIRS)
    if change in ("image", "labels"):
        file = study.scans.files["d"][change == "labels"]  # type: ignore[attr-defined]
        scan = read_volume(file)
        scan.data[0, 0, 0] = 1.0
        write_volume(file, scan)
        expected = 2  # the pairs of d and e
    if change == "counted":
        study = replace(study, scans=replace(study.scans, label_names={1: "box"}))  # type: ignore[type-var]
    run_study(study, [again])
    assert len(again.calls) == expected


def test_the_order_of_settings_does_not_matter(study: Study) -> None:
    run_study(study, [Fake("truth", "truth", {"a": 1, "b": 2})])
    again = Fake("truth", "truth", {"b": 2, "a": 1})
    run_study(study, [again])
    assert again.calls == []


def test_a_failure_is_listed_and_the_others_go_on(study: Study) -> None:
    def fail_once(calls: int) -> None:
        if calls == 2 and not failed:
            failed.append(calls)
            raise ValueError("the scan\n is too small")

    failed: list[int] = []
    result, fine = run_study(study, [Fake("truth", "truth", before=fail_once), Fake("nothing", "nothing")])
    assert result.failures == {PAIRS[2]: "ValueError: the scan is too small"}
    assert list(result.scores) == [pair for pair in PAIRS if pair != PAIRS[2]]
    assert len(fine.scores) == len(PAIRS)
    again = Fake("truth", "truth")
    (repaired,) = run_study(study, [again])
    assert len(again.calls) == 1  # what failed is tried again
    assert repaired.failures == {}


def test_memory_that_runs_out_is_a_failure_too(study: Study) -> None:
    def run_out(_: int) -> None:
        raise MemoryError("not enough")

    (result,) = run_study(study, [Fake("truth", "truth", before=run_out)])
    assert set(result.failures.values()) == {"MemoryError: not enough"}
    assert len(result.failures) == len(PAIRS)


def test_a_damaged_file_is_named_and_does_not_end_the_run(study: Study) -> None:
    run_study(study, [Fake("truth", "truth")])
    damaged = kept(study)[0]
    for text in ("{", "{}", '{"scores": {"labels": 3}}'):
        damaged.write_text(text)
        (result,) = run_study(study, [Fake("truth", "truth")])
        (message,) = result.failures.values()
        assert message.startswith(f"InputError: {damaged} is damaged")
        assert message.endswith("delete it, and the pair is measured again")
        assert len(result.scores) == len(PAIRS) - 1


def test_an_absent_method_is_reported_as_absent(study: Study) -> None:
    absent = Fake("gone", "truth", reason="it is not on PATH; install it")
    result, _ = run_study(study, [absent, Fake("truth", "truth")])
    assert result == MethodResult("gone", "the gone", absent="it is not on PATH; install it")
    assert (absent.calls, absent.trained) == ([], [])


def test_a_method_is_made_ready_once_a_fold_with_that_folds_training_scans(study: Study) -> None:
    fake = Fake("truth", "truth", training=True, training_seconds=3.5)
    (result,) = run_study(study, [fake])
    assert result.training_seconds == {0: 3.5, 1: 3.5}
    assert fake.trained == [("d", "e"), ("a", "b", "c")]


def test_a_training_that_fails_leaves_out_its_fold_only(study: Study) -> None:
    class Untrainable(Fake):
        def for_fold(self, fold: Any, hooks: Any) -> Fake:
            if fold is FOLDS[0]:
                raise RuntimeError("the loss is not finite")
            return super().for_fold(fold, hooks)

    (result,) = run_study(study, [Untrainable("truth", "truth", training=True)])
    assert set(result.failures) == {pair for pair in PAIRS if pair.fold == 0}
    assert set(result.failures.values()) == {"RuntimeError: the loss is not finite"}
    assert set(result.scores) == {pair for pair in PAIRS if pair.fold == 1}


def test_progress_rises_to_one_and_says_what_is_done(study: Study) -> None:
    told: list[Progress] = []

    class Slow(Fake):
        def for_fold(self, fold: Any, hooks: Any) -> Fake:
            hooks.on_progress(Progress("training", 0.5, "iteration 5 of 10"))
            return super().for_fold(fold, hooks)

    gone = Fake("gone", "truth", reason="not here")
    run_study(replace(study, on_progress=told.append), [Slow("slow", "truth", training=True), gone])
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert [p.message for p in told][:3] == [
        "the slow, fold 1 of 2: training",
        "the slow, fold 1 of 2: iteration 5 of 10",
        f"the slow: {PAIRS[0].name}",
    ]
    assert told[1].fraction - told[0].fraction == pytest.approx(10 / (2 * len(PAIRS) + 2 * 20))


def test_the_results_so_far_are_handed_over_after_each_method(study: Study) -> None:
    counts: list[list[str]] = []
    fakes = [Fake("truth", "truth"), Fake("nothing", "nothing")]
    run_study(study, fakes, lambda results: counts.append([result.name for result in results]))
    assert counts == [["truth"], ["truth", "nothing"]]


def test_a_part_of_the_pairs_is_a_part_of_the_work(study: Study) -> None:
    fake = Fake("truth", "truth")
    some = pairs_of(FOLDS, 3)
    (result,) = run_study(replace(study, pairs=some), [fake])
    assert list(result.scores) == list(some)
    rest = Fake("truth", "truth")
    run_study(study, [rest])
    assert len(rest.calls) == len(PAIRS) - 3
    assert all(isinstance(pair, ScanPair) for pair in result.scores)
