"""The layers, ours and the naive ones, in turn and each in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.statistics_of_runs import ratio_of_medians
from pddnet.benchmarks.child import ChildRun, run_json

Tell = Callable[[str], None]
Report = dict[str, Any]
NAIVE = Path(__file__).with_name("naive_run.py")
_OURS_EACH_TIME = 3


def compare(points: int, labels: int, channels: int, rounds: int, tell: Tell, seed: int = 0) -> Report:
    """Ours, naive, ours, ..., naive, ours: `rounds` of the naive one, what each found, and the ratios.

    Returns:
        `ours` (the last report), `naive`, all seconds and the peak memory of both, `time_ratio` and `memory_ratio`
        of the medians, and `largest_difference` of the expected displacements, normalised.
    """
    problem = {"--control-points": points, "--labels": labels, "--channels": channels, "--seed": seed}
    arguments = [item for option in problem.items() for item in option]
    with tempfile.TemporaryDirectory(prefix="pddnet-bench-") as folder:
        ours_found, naive_found = Path(folder, "ours.npy"), Path(folder, "naive.npy")

        def run_ours() -> ChildRun:
            more = ["--repeat", _OURS_EACH_TIME, "--save", ours_found, "--device", "cpu", "--json"]
            return run_json("pddnet", ["bench", "layers", *arguments, *more])

        ours, naive = [run_ours()], []
        for _ in range(rounds):
            tell(f"naive layers, {points}^3 control points, {labels}^3 labels")
            naive.append(run_json(str(NAIVE), [*arguments, "--save", naive_found]))
            ours.append(run_ours())
        difference = float(np.abs(np.load(ours_found) - np.load(naive_found)).max())
    return summary(ours, naive, difference)


def summary(ours: Sequence[ChildRun], naive: Sequence[ChildRun], difference: float) -> Report:
    """Medians and their ratios; of ours every repetition counts."""
    our_seconds = [seconds for run in ours for seconds in run.report["all_seconds"]]
    naive_seconds = [run.report["seconds"] for run in naive]
    our_peaks = [run.report["peak_mb"] for run in ours]  # without the arrays that measure the machine
    naive_peaks = [run.peak_mb for run in naive]
    return {
        "ours": ours[-1].report,
        "naive": naive[-1].report,
        "our_seconds": our_seconds,
        "naive_seconds": naive_seconds,
        "our_peak_mb": max(our_peaks),
        "naive_peak_mb": max(naive_peaks),
        "time_ratio": ratio_of_medians(naive_seconds, our_seconds),
        "memory_ratio": ratio_of_medians(naive_peaks, our_peaks),
        "largest_difference": difference,
    }
