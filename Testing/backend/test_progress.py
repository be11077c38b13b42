"""Progress reports, stage times and cancellation."""

from __future__ import annotations

import time

import pytest

from pddnet.errors import RegistrationCancelled
from pddnet.progress import Progress, Reporter

COSTS = {"first": 1.0, "second": 6.0, "third": 3.0}


def test_fractions_follow_the_costs_of_the_finished_stages_and_end_at_one() -> None:
    reports: list[Progress] = []
    reporter = Reporter(COSTS, reports.append)
    for name in COSTS:
        with reporter.stage(name, f"doing {name}"):
            pass
    reporter.done()
    assert [report.fraction for report in reports] == pytest.approx([0.0, 0.1, 0.7, 1.0])
    assert [report.stage for report in reports] == ["first", "second", "third", "done"]
    assert [report.message for report in reports][:2] == ["doing first", "doing second"]


def test_a_skipped_stage_leaves_the_fractions_rising_to_one() -> None:
    reports: list[Progress] = []
    reporter = Reporter(COSTS, reports.append)
    for name in ("first", "third", "unforeseen"):
        with reporter.stage(name, ""):
            pass
    reporter.done()
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_a_report_reads_as_a_line() -> None:
    assert str(Progress("level 2", 0.257, "level 2 of 8")) == " 26% level 2 of 8"


def test_each_stage_is_timed() -> None:
    reporter = Reporter(COSTS)
    with reporter.stage("first", ""):
        time.sleep(0.05)
    with reporter.stage("second", ""):
        pass
    assert list(reporter.seconds) == ["first", "second"]
    assert reporter.seconds["first"] >= 0.05
    assert reporter.seconds["second"] < 0.05


def test_cancelling_raises_at_the_next_piece_of_work_and_nothing_more_is_reported() -> None:
    reports: list[Progress] = []
    answers = iter([False, False, True])
    reporter = Reporter(COSTS, reports.append, lambda: next(answers))
    done: list[int] = []

    def work() -> None:
        with reporter.stage("first", ""):
            for piece in range(5):
                reporter.tick()
                done.append(piece)

    with pytest.raises(RegistrationCancelled, match="cancelled; nothing was changed"):
        work()
    assert done == [0]
    assert reporter.seconds == {}
    assert [report.stage for report in reports] == ["first"]


def test_a_stage_does_not_begin_after_cancelling() -> None:
    reports: list[Progress] = []
    reporter = Reporter(COSTS, reports.append, lambda: True)
    with pytest.raises(RegistrationCancelled), reporter.stage("first", ""):
        pytest.fail("the stage ran")
    assert reports == []


def test_without_callbacks_it_only_keeps_time() -> None:
    reporter = Reporter(COSTS)
    with reporter.stage("first", ""):
        reporter.tick()
    reporter.done()
    assert set(reporter.seconds) == {"first"}
