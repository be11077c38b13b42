"""Tables have the paper's layout, parse back to the numbers they show, and name what is missing."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from backend.small_study import FOLDS, NAMES
from pddnet.cross_validation.pairs import ScanPair
from pddnet.cross_validation.report import Setting, report_of, table_of, write_report
from pddnet.cross_validation.runner import MethodResult
from pddnet.cross_validation.scores import LabelScore, PairScores
from pddnet.cross_validation.statistics import NO_SCIPY
from pddnet.cross_validation.tables import label_titles, markdown, pairs_csv, rows_of, table_csv

PAIRS = [ScanPair(0, "a", "b"), ScanPair(0, "b", "a"), ScanPair(1, "d", "e")]


def scores(box: float, bar: float, hd95: float | None = 1.5) -> PairScores:
    return PairScores((LabelScore(1, box, 2.0), LabelScore(2, bar, hd95)), 0.4, 0.3, 0.125, 2.5, 512.0)


GOOD = MethodResult("good", "the good | one", {PAIRS[0]: scores(0.8, 0.6), PAIRS[1]: scores(0.9, 0.5)})
POOR = MethodResult(
    "poor",
    "the poor one",
    {PAIRS[0]: scores(0.5, 0.3), PAIRS[1]: scores(0.4, 0.2, None)},
    {PAIRS[2]: "RuntimeError: it\tbroke"},
    training_seconds={0: 60.0, 1: 180.0},
)
GONE = MethodResult("gone", "the absent one", absent="it is not on PATH; install it")
BROKEN = MethodResult("broken", "the broken one", failures=dict.fromkeys(PAIRS, "ValueError: no"))
RESULTS = [GOOD, POOR, GONE, BROKEN]
SETTING = Setting("boxes", NAMES, FOLDS, PAIRS, {"seed": 3}, "good")


def cells(lines: list[str]) -> list[list[list[str]]]:
    """The tables of a Markdown text: rows of cells, the rule left out."""
    tables: list[list[list[str]]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and not before.startswith("|"):
            tables.append([])
        if line.startswith("|") and "---" not in line:
            row = line.strip("|").replace("\\|", "\0").split("|")
            tables[-1].append([cell.strip().replace("\0", "|") for cell in row])
    return tables


def test_the_first_table_has_the_papers_columns() -> None:
    first, _ = cells(markdown(rows_of(RESULTS, "good"), NAMES))
    assert first == [
        ["method", "box", "bar", "∅ 2 lab.", "std(Jac)", "run time s"],
        ["the good | one", "85.0", "55.0", "70.0±0.0", "0.40", "2.50"],
        ["the poor one", "45.0", "25.0", "35.0±7.1", "0.40", "2.50"],
        ["the absent one", "-", "-", "absent", "-", "-"],
        ["the broken one", "-", "-", "failed", "-", "-"],
    ]


def test_the_second_table_has_the_rest_and_the_comparison() -> None:
    _, second = cells(markdown(rows_of(RESULTS, "good"), NAMES))
    head, good, poor, broken = second
    shown = dict(zip(head, poor, strict=True))
    assert shown == {
        "method": "the poor one",
        "pairs": "2",
        "failed": "1",
        "HD95 mm": "1.88±0.18",  # (2 + 1.5) / 2 and 2
        "labels lost": "1",
        "std(log Jac)": "0.30",
        "folding %": "0.1250",
        "peak MB": "512",
        "training min": "2.0",
        "std over labels": "14.1",
        "median difference": "-35.0",
        "p": "0.5000",
    }
    assert dict(zip(head, good, strict=True))["p"] == "-"
    assert broken[:3] == ["the broken one", "0", "3"]


def test_the_notes_name_the_reference_what_is_absent_and_what_failed() -> None:
    notes = [line for line in markdown(rows_of(RESULTS, "good"), NAMES) if line.startswith("* ")]
    assert "* Absent: the absent one: it is not on PATH; install it" in notes
    assert "* Failed: the poor one, e onto d (fold 2): RuntimeError: it\tbroke" in notes
    assert any("that of good on the pairs both registered" in note for note in notes)
    assert not any("that of" in note for note in markdown(rows_of(RESULTS, None), NAMES))


def test_the_comma_separated_table_holds_the_numbers_in_full() -> None:
    rows = {
        row["method"]: row for row in csv.DictReader(io.StringIO(table_csv(rows_of(RESULTS, "good"), NAMES)))
    }
    assert list(rows) == ["good", "poor", "gone", "broken"]
    poor = rows["poor"]
    assert float(poor["dice mean"]) == pytest.approx(0.35)
    assert float(poor["dice std"]) == pytest.approx(0.1 / 2**0.5)
    assert float(poor["dice box"]) == pytest.approx(0.45)
    assert float(poor["hd95 bar"]) == 1.5
    assert (poor["pairs"], poor["failed"], poor["lost_labels"]) == ("2", "1", "1")
    assert float(poor["median_dice_difference"]) == pytest.approx(-0.35)
    assert (poor["reference"], float(poor["wilcoxon_p"])) == ("good", 0.5)
    assert (poor["training_seconds"], rows["good"]["training_seconds"]) == ("120.0", "")
    assert rows["gone"]["absent"] == "it is not on PATH; install it"
    assert rows["gone"]["dice mean"] == rows["good"]["wilcoxon_p"] == ""


def test_every_pair_and_label_has_a_line() -> None:
    lines = list(csv.DictReader(io.StringIO(pairs_csv(rows_of(RESULTS, None), NAMES))))
    assert len(lines) == 2 * 2 * 2
    last = lines[-1]
    assert (last["method"], last["fold"], last["fixed"], last["moving"]) == ("poor", "1", "b", "a")
    assert (last["label_name"], float(last["dice"]), last["hd95"]) == ("bar", 0.2, "")


def test_labels_of_the_same_name_are_told_apart() -> None:
    rows = rows_of([GOOD], None)
    assert label_titles(rows, {1: "organ", 2: "organ"}) == {1: "organ (1)", 2: "organ (2)"}
    assert label_titles(rows, {1: "organ"}) == {1: "organ", 2: "label 2"}


def test_the_folder_holds_all_of_it_as_it_was(tmp_path: Path) -> None:
    report = write_report(tmp_path / "new" / "out", SETTING, RESULTS)
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new" / "out").iterdir()}
    assert written.keys() == {"results.json", "table.md", "table.csv", "pairs.csv"}
    assert json.loads(written["results.json"]) == report == report_of(SETTING, RESULTS)
    assert written["table.md"].splitlines() == table_of(SETTING, RESULTS)
    good, poor, gone, _ = report["methods"]
    assert good["summary"]["dice_by_label"]["1"]["mean"] == pytest.approx(0.85)
    assert good["comparison"] is None
    assert poor["training_seconds"] == {"1": 60.0, "2": 180.0}
    assert poor["comparison"] | {"p": 0.5} == {
        "reference": "good",
        "pairs": 2,
        "median_difference": pytest.approx(-0.35),
        "p": 0.5,
    }
    assert poor["scores"][1]["labels"][1] == {"label": 2, "dice": 0.2, "hd95": None}
    assert poor["failures"] == [
        {"fold": 2, "fixed": "d", "moving": "e", "message": "RuntimeError: it\tbroke"}
    ]
    assert (gone["absent"], gone["scores"]) == ("it is not on PATH; install it", [])
    assert report["options"] == {"seed": 3}
    assert report["notes"] == []


def test_a_missing_scipy_is_said_in_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    report = write_report(tmp_path, SETTING, RESULTS)
    assert report["notes"] == [NO_SCIPY]
    assert f"* {NO_SCIPY}" in (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert report["methods"][1]["comparison"]["p"] is None
