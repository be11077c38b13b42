"""What the quality table tells, column by column: name, unit, meaning, and where the worker's report has the number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _

Report = Mapping[str, Any]
Cell = str | float | None


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: the same in all languages.
        whole: its value for the whole registration, from the report.
        segment: the key of its value for a segment; "" for none.
        decimals: as many as mean something.
    """

    name: str
    title: str
    description: str
    whole: Callable[[Report], Any]
    segment: str = ""
    unit: str = ""
    decimals: int = 2

    @property
    def header(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def forAll(self, report: Report) -> Cell:
        """The cell of the whole registration."""
        return self._cell(self.whole(report))

    def forSegment(self, segment: Report) -> Cell:
        """The cell of one entry of the report's segments."""
        return self._cell(segment.get(self.segment)) if self.segment else None

    def text(self, cell: Cell) -> str:
        """A cell as text, "" for none."""
        if cell is None or isinstance(cell, str):
            return cell or ""
        return f"{cell:.{self.decimals}f}"

    def _cell(self, value: Any) -> Cell:
        if isinstance(value, str):
            return value
        return None if missing(value) else round(float(value), self.decimals)


def missing(value: Any) -> bool:
    """Whether a number is not known."""
    return value is None or not math.isfinite(value)


def columns() -> list[Column]:
    """All columns, in order; made when asked for, so that they are in the language of the moment."""
    return [*_names(), *_agreement(), *_landmarks(), *_motion(), *_transform(), *_run()]


def _names() -> list[Column]:
    """The first cell of a row must not be empty: Slicer's reader of tables would leave it out and shift the others."""
    return [
        Column("segment", _("Segment"), _("Its name."), lambda _report: _("(all)"), "name"),
        Column(
            "segmentation", _("Segmentation"), _("The segmentation it belongs to."), _nothing, "segmentation"
        ),
    ]


def _agreement() -> list[Column]:
    dice = _(
        "Overlap with the fixed segment of the same name; 1 is perfect. First row: mean over the segments."
    )
    hd95 = _(
        "Distance from the surface of the fixed segment of the same name that 95 % of the surface stay below. "
        "First row: mean over the segments."
    )
    return [
        Column("dice_before", _("Dice before"), dice, _mean("dice_before"), "dice_before", decimals=3),
        Column("dice_after", _("Dice after"), dice, _mean("dice_after"), "dice_after", decimals=3),
        Column("hd95_before_mm", _("HD95 before"), hd95, _mean("hd95_before"), "hd95_before", "mm"),
        Column("hd95_after_mm", _("HD95 after"), hd95, _mean("hd95_after"), "hd95_after", "mm"),
    ]


def _landmarks() -> list[Column]:
    text = _("Distance between each moving landmark and where its fixed counterpart is taken to.")
    titles = {
        ("before", "mean"): _("Landmark error before, mean"),
        ("after", "mean"): _("Landmark error after, mean"),
        ("before", "max"): _("Landmark error before, largest"),
        ("after", "max"): _("Landmark error after, largest"),
    }
    return [
        Column(f"landmarks_{when}_{which}_mm", title, text, _distance(when, which), unit="mm")
        for (when, which), title in titles.items()
    ]


def _motion() -> list[Column]:
    return [
        Column(
            "displacement_mean_mm",
            _("Displacement, mean"),
            _("How far points of the fixed scan are from their counterparts in the moving scan."),
            _at("displacement_mm", "mean"),
            "displacement_mean_mm",
            "mm",
        ),
        Column(
            "displacement_max_mm",
            _("Displacement, largest"),
            _("The same, at its largest."),
            _at("displacement_mm", "max"),
            "displacement_max_mm",
            "mm",
        ),
        Column(
            "uncertainty_mean_mm",
            _("Uncertainty, mean"),
            _("How widely the displacements that the algorithm holds possible are spread."),
            _at("uncertainty_mm", "mean"),
            "uncertainty_mean_mm",
            "mm",
        ),
        Column(
            "folding_percent",
            _("Folding"),
            _("Share of the voxels where the transform turns tissue inside out; 0 is wanted."),
            _at("folding_percent"),
            "folding_percent",
            "%",
            decimals=3,
        ),
        Column("volume_ml", _("Volume"), _("Of the warped segment."), _nothing, "volume_ml", "ml", 1),
    ]


def _transform() -> list[Column]:
    jacobian = _("Local change of volume from fixed to moving: 1 is none, 0 and below is folding.")
    residual = _("How far points are from where they began after the transform and its inverse.")
    return [
        Column("jacobian_min", _("Jacobian, smallest"), jacobian, _at("jacobian", "min"), decimals=3),
        Column("jacobian_max", _("Jacobian, largest"), jacobian, _at("jacobian", "max"), decimals=3),
        Column(
            "inverse_residual_mean_mm",
            _("Inverse residual, mean"),
            residual,
            _at("inverse_residual_mm", "mean"),
            unit="mm",
            decimals=4,
        ),
        Column(
            "inverse_residual_max_mm",
            _("Inverse residual, largest"),
            residual,
            _at("inverse_residual_mm", "max"),
            unit="mm",
            decimals=4,
        ),
    ]


def _run() -> list[Column]:
    memory = _("The most main memory that the registration process held.")
    return [
        Column(
            "seconds",
            _("Time"),
            _("Of the computation."),
            _at("seconds"),
            unit="s",
            decimals=1,
        ),
        Column("peak_memory_mb", _("Peak memory"), memory, _at("peak_memory_mb"), unit="MB", decimals=0),
        Column("device", _("Device"), _("What it was computed on."), _at("device")),
        Column("preset", _("Preset"), _("What it was adjusted to."), _at("preset")),
    ]


def _nothing(_report: Report) -> None:
    return None


def _at(*keys: str) -> Callable[[Report], Any]:
    """What lies at a path of keys in the report, None where it ends early."""

    def look(report: Report) -> Any:
        found: Any = report
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return look


def _mean(key: str) -> Callable[[Report], float | None]:
    """Over the segments that have a value."""

    def look(report: Report) -> float | None:
        values = [segment.get(key) for segment in report.get("segments") or ()]
        return _averaged([value for value in values if not missing(value)])

    return look


def _distance(when: str, which: str) -> Callable[[Report], float | None]:
    """Mean or max over the landmarks."""

    def look(report: Report) -> float | None:
        distances = [value for value in _at("landmarks_mm", when)(report) or () if not missing(value)]
        return _averaged(distances) if which == "mean" else max(distances, default=None)

    return look


def _averaged(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
