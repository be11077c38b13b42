"""The pictures of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window is wanted
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator

Report = Mapping[str, Any]
_QUANTITIES = (("seconds", "seconds", "time_exponent"), ("peak_mb", "peak MB", "memory_exponent"))


def draw_growth(section: Report, path: Path) -> None:
    """Time and memory against voxels, control points and labels, on logarithmic axes."""
    columns = [
        ("voxels", section["voxels"]),
        ("control points", {"6-D layers": section["control points"]}),
        ("labels", {"6-D layers": section["labels"]}),
    ]
    figure, axes = pyplot.subplots(2, len(columns), figsize=(11, 6), layout="constrained")
    for row, (key, unit, exponent) in zip(axes, _QUANTITIES, strict=True):
        for axis, (against, curves) in zip(row, columns, strict=True):
            for name, curve in curves.items():
                _draw_curve(axis, name, curve, key, exponent)
            axis.set(xscale="log", yscale="log", xlabel=against, ylabel=unit)
            _mark_sizes(axis, next(iter(curves.values()))["sizes"])
            axis.grid(True, which="both", alpha=0.25)
            axis.legend(fontsize=8)
    _save(figure, path)


def draw_layers(section: Report, path: Path) -> None:
    """Seconds of each stage of the largest problem: naive above, ours below."""
    largest = section["rows"][-1]
    figure, axis = pyplot.subplots(figsize=(9, 2.6), layout="constrained")
    stages = list(dict.fromkeys([*largest["naive"]["stages"], *largest["ours"]["stages"]]))
    shades = pyplot.get_cmap("tab10")
    for height, name in ((1, "naive"), (0, "ours")):
        left = 0.0
        for stage, seconds in largest[name]["stages"].items():
            axis.barh(height, seconds, left=left, color=shades(stages.index(stage)), label=stage)
            left += seconds
        axis.annotate(f" {left:.2f} s", (left, height), va="center")
    axis.set(yticks=(1, 0), yticklabels=("naive", "ours"), xlabel="seconds")
    axis.margins(x=0.12)
    handles, names = axis.get_legend_handles_labels()
    legend = dict(zip(names, handles, strict=True))
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=4, fontsize=8)
    _save(figure, path)


def _draw_curve(axis: Axes, name: str, curve: Report, key: str, exponent: str) -> None:
    power = curve[exponent]
    label = name if power is None else f"{name}: size^{power:.2f}"
    axis.plot(curve["sizes"], curve[key], marker="o", label=label)


def _mark_sizes(axis: Axes, sizes: Sequence[float]) -> None:
    """Ticks where there are points; plain numbers along the other axis."""
    labels = [f"{size / 1e6:.1f} M" if size > 1e5 else f"{round(size ** (1 / 3))}$^3$" for size in sizes]
    axis.set_xticks(sizes, labels)
    axis.xaxis.set_minor_locator(NullLocator())
    for formatted in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        formatted(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1)))


def _save(figure: Figure, path: Path) -> None:
    """The same bytes for the same numbers; text stays text."""
    with matplotlib.rc_context({"svg.hashsalt": "pddnet", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
