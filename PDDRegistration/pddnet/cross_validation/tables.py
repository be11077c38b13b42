"""Results as tables: Markdown in the layout of the paper's Table 1, CSV for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pddnet.cross_validation.runner import MethodResult
from pddnet.cross_validation.statistics import Comparison, Spread, Summary, compared, summary_of

_NONE = "-"
_SPREADS = ("dice", "dice_over_labels", "hd95", "jacobian_std", "log_jacobian_std", "folding_percent")
_COSTS = ("seconds", "peak_mb")


@dataclass(frozen=True)
class Row:
    """One method: its result, that in short, and how it compares with the reference."""

    result: MethodResult
    summary: Summary
    comparison: Comparison | None


def rows_of(results: Sequence[MethodResult], reference: str | None) -> list[Row]:
    """A row for each method, compared with the method `reference` where that is measured."""
    there = {result.name: result for result in results}
    other = there.get(reference or "")
    return [
        Row(
            result,
            summary_of(list(result.scores.values())),
            compared(result.scores, other.scores, other.name) if other and result is not other else None,
        )
        for result in results
    ]


def label_titles(rows: Sequence[Row], names: Mapping[int, str]) -> dict[int, str]:
    """What the labels that were measured are called, each differently."""
    codes = sorted({label for row in rows for label in row.summary.dice_by_label})
    titles = {code: names.get(code, f"label {code}") for code in codes}
    taken = list(titles.values())
    return {code: title if taken.count(title) == 1 else f"{title} ({code})" for code, title in titles.items()}


def markdown(rows: Sequence[Row], names: Mapping[int, str]) -> list[str]:
    """Lines of Markdown: Table 1, then distances, regularity, memory and the comparison, then notes."""
    titles = label_titles(rows, names)
    return [*_table_1(rows, titles), "", *_table_2(rows), "", *_notes(rows)]


def table_csv(rows: Sequence[Row], names: Mapping[int, str]) -> str:
    """One line a method, full precision; Dice from 0 to 1; a cell is empty where nothing was measured."""
    titles = label_titles(rows, names)
    head = ["method", "title", "pairs", "failed", "absent"]
    head += [f"dice {title}" for title in titles.values()]
    head += [f"hd95 {title}" for title in titles.values()]
    head += [f"{name} {what}" for name in (*_SPREADS, *_COSTS) for what in ("mean", "std")]
    head += [
        "training_seconds",
        "lost_labels",
        "reference",
        "compared_pairs",
        "median_dice_difference",
        "wilcoxon_p",
    ]
    return _csv(head, [_csv_row(row, titles) for row in rows])


def pairs_csv(rows: Sequence[Row], names: Mapping[int, str]) -> str:
    """One line for each method, pair and label."""
    head = ["method", "fold", "fixed", "moving", "label", "label_name", "dice", "hd95"]
    head += ["jacobian_std", "log_jacobian_std", "folding_percent", "seconds", "peak_mb"]
    lines: list[list[object]] = []
    for row in rows:
        for pair, found in row.result.scores.items():
            whole = (found.jacobian_std, found.log_jacobian_std, found.folding_percent, found.seconds)
            where = (row.result.name, pair.fold + 1, pair.fixed, pair.moving)
            lines += [
                [*where, s.label, names.get(s.label, ""), s.dice, s.hd95, *whole, found.peak_mb]
                for s in found.labels
            ]
    return _csv(head, lines)


def _table_1(rows: Sequence[Row], titles: Mapping[int, str]) -> list[str]:
    head = ["method", *titles.values(), f"∅ {len(titles)} lab.", "std(Jac)", "run time s"]
    lines = []
    for row in rows:
        name, found = row.result.title, row.summary
        if found.dice is None:
            missing = "absent" if row.result.absent else "failed"
            lines.append([name, *[_NONE] * len(titles), missing, _NONE, _NONE])
            continue
        organs = [_mean(found.dice_by_label.get(code), 100, 1) for code in titles]
        cost = (_mean(found.jacobian_std, 1, 2), _mean(found.seconds, 1, 2))
        lines.append([name, *organs, _mean_std(found.dice, 100, 1), *cost])
    return _markdown_table(head, lines)


def _table_2(rows: Sequence[Row]) -> list[str]:
    head = ["method", "pairs", "failed", "HD95 mm", "labels lost", "std(log Jac)", "folding %", "peak MB"]
    head += ["training min", "std over labels", "median difference", "p"]
    lines = []
    for row in rows:
        found, result = row.summary, row.result
        if result.absent:
            continue
        lines.append(
            [
                result.title,
                str(len(result.scores)),
                str(len(result.failures)),
                _mean_std(found.hd95, 1, 2),
                str(found.lost_labels),
                _mean(found.log_jacobian_std, 1, 2),
                _mean(found.folding_percent, 1, 4),
                _mean(found.peak_mb, 1, 0),
                _mean(Spread.of(list(result.training_seconds.values())), 1 / 60, 1),
                _std(found.dice_over_labels, 100, 1),
                *_comparison_cells(row.comparison),
            ]
        )
    return _markdown_table(head, lines)


def _comparison_cells(comparison: Comparison | None) -> tuple[str, str]:
    if comparison is None:
        return _NONE, _NONE
    p = comparison.p
    shown = _NONE if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}"
    return f"{100 * comparison.median_difference:+.1f}", shown


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = [
        "Dice in %; ± is the standard deviation over pairs of the mean over labels.",
        "Run time: ours from scans in memory, other programs' from files. Peak memory: of the whole process. "
        "Training: mean over the folds.",
    ]
    references = sorted({row.comparison.reference for row in rows if row.comparison})
    for name in references:
        notes.append(
            f"Difference and p: a method's mean Dice against that of {name} on the pairs both registered, median and "
            "two-sided Wilcoxon signed-rank test; pairs share scans, and p is not corrected for the number of methods."
        )
    for row in rows:
        if row.result.absent:
            notes.append(f"Absent: {row.result.title}: {row.result.absent}")
    for row in rows:
        for pair, message in row.result.failures.items():
            notes.append(f"Failed: {row.result.title}, {pair.name} (fold {pair.fold + 1}): {message}")
    return [f"* {note}" for note in notes]


def _csv_row(row: Row, titles: Mapping[int, str]) -> list[object]:
    found, result, other = row.summary, row.result, row.comparison
    cells: list[object] = [result.name, result.title, len(result.scores), len(result.failures)]
    cells.append(result.absent)
    for by_label in (found.dice_by_label, found.hd95_by_label):
        cells += [by_label[code].mean if code in by_label else None for code in titles]
    for name in (*_SPREADS, *_COSTS):
        spread: Spread | None = getattr(found, name)
        cells += [spread.mean, spread.std] if spread else [None, None]
    training = Spread.of(list(result.training_seconds.values()))
    cells += [training.mean if training else None, found.lost_labels]
    return cells + ([other.reference, other.pairs, other.median_difference, other.p] if other else [None] * 4)


def _csv(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *lines])
    return text.getvalue()


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(cells) + " |"
        for cells in (_escaped(head), ["---"] * len(head), *map(_escaped, lines))
    ]


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def _shown(value: Callable[[Spread], float | None]) -> Callable[[Spread | None, float, int], str]:
    def text(spread: Spread | None, factor: float, digits: int) -> str:
        number = value(spread) if spread else None
        return _NONE if number is None else f"{factor * number:.{digits}f}"

    return text


_mean = _shown(lambda spread: spread.mean)
_std = _shown(lambda spread: spread.std)


def _mean_std(spread: Spread | None, factor: float, digits: int) -> str:
    std = _std(spread, factor, digits)
    return _mean(spread, factor, digits) + ("" if std == _NONE else f"±{std}")
