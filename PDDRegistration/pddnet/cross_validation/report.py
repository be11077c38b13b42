"""The folder of a benchmark: results.json, table.md, table.csv, pairs.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pddnet.cross_validation.cache import write_json, write_text
from pddnet.cross_validation.pairs import ScanPair, Split
from pddnet.cross_validation.runner import MethodResult
from pddnet.cross_validation.statistics import NO_SCIPY, scipy_is_there
from pddnet.cross_validation.tables import Row, markdown, pairs_csv, rows_of, table_csv
from pddnet.outputs import versions
from pddnet.strict_json import to_json

RESULTS, TABLE, TABLE_CSV, PAIRS_CSV = "results.json", "table.md", "table.csv", "pairs.csv"


@dataclass(frozen=True)
class Setting:
    """What was measured on.

    Args:
        dataset: its name.
        label_names: by code.
        folds, pairs: which scans are trained with and which pairs are judged.
        options: of the command, for whoever reads the results.
        reference: method that the others are compared with; None for none.
    """

    dataset: str
    label_names: Mapping[int, str]
    folds: Sequence[Split]
    pairs: Sequence[ScanPair]
    options: Mapping[str, Any]
    reference: str | None


def report_of(setting: Setting, results: Sequence[MethodResult]) -> dict[str, Any]:
    """What results.json holds."""
    rows = rows_of(results, setting.reference)
    return {
        "dataset": setting.dataset,
        "labels": {str(code): name for code, name in setting.label_names.items()},
        "folds": [{"train": list(fold.train), "test": list(fold.test)} for fold in setting.folds],
        "pairs": len(setting.pairs),
        "options": to_json(setting.options),
        "reference": setting.reference,
        "notes": _notes(setting),
        "versions": versions(),
        "methods": [_method(row) for row in rows],
    }


def table_of(setting: Setting, results: Sequence[MethodResult]) -> list[str]:
    """The tables and their notes in Markdown."""
    lines = markdown(rows_of(results, setting.reference), setting.label_names)
    return lines + [f"* {note}" for note in _notes(setting)]


def write_report(out: Path, setting: Setting, results: Sequence[MethodResult]) -> dict[str, Any]:
    """Write all four files into the folder `out`; returns what results.json holds."""
    rows, report = rows_of(results, setting.reference), report_of(setting, results)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / TABLE, "\n".join(table_of(setting, results)) + "\n")
    write_text(out / TABLE_CSV, table_csv(rows, setting.label_names))
    write_text(out / PAIRS_CSV, pairs_csv(rows, setting.label_names))
    write_json(out / RESULTS, report)
    return report


def _notes(setting: Setting) -> list[str]:
    return [NO_SCIPY] if setting.reference and not scipy_is_there() else []


def _method(row: Row) -> dict[str, Any]:
    result = row.result
    return {
        "name": result.name,
        "title": result.title,
        "absent": result.absent,
        "training_seconds": {str(fold + 1): s for fold, s in result.training_seconds.items()},
        "summary": to_json(asdict(row.summary)),
        "comparison": to_json(row.comparison) if row.comparison else None,
        "scores": [_pair(pair) | to_json(scores) for pair, scores in result.scores.items()],
        "failures": [_pair(pair) | {"message": text} for pair, text in result.failures.items()],
    }


def _pair(pair: ScanPair) -> dict[str, Any]:
    return {"fold": pair.fold + 1, "fixed": pair.fixed, "moving": pair.moving}
