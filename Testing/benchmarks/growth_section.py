"""How time and peak memory grow: of registrations with the voxels, of the layers with control points and labels."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scans import shrunken_pair
from benchmarks.statistics_of_runs import exponent
from pddnet.benchmarks.child import run_json
from pddnet.benchmarks.registering import PairFiles, register_files

Tell = Callable[[str], None]
Report = dict[str, Any]


def curve(
    sizes: Sequence[float], seconds: Sequence[float], peaks_mb: Sequence[float], base_mb: float
) -> Report:
    """Points and fitted exponents; of the memory above `base_mb`, which the program takes to do nothing."""
    above = [peak - base_mb for peak in peaks_mb]
    return {
        "sizes": list(sizes),
        "seconds": list(seconds),
        "peak_mb": list(peaks_mb),
        "base_mb": base_mb,
        "time_exponent": exponent(sizes, seconds),
        "memory_exponent": exponent(sizes, above) if min(above) > 0 else None,
        "last_time_exponent": exponent(sizes[-2:], seconds[-2:]),
    }


def with_voxels(
    files: PairFiles, folder: Path, presets: Sequence[str], parts: Sequence[int], base_mb: float, tell: Tell
) -> dict[str, Report]:
    """The pair with 1/8, 1/4, 1/2 and all of its voxels, each as large as before, registered with each preset."""
    found: dict[str, list[tuple[int, float, float]]] = {preset: [] for preset in presets}
    for part in parts:
        pair, voxels = shrunken_pair(files, folder / f"part-{part}", part)
        for preset in presets:
            tell(f"{preset}, {voxels / 1e6:.2f} million voxels")
            run = register_files(pair, folder / "out", preset, "cpu")
            found[preset].append((voxels, run.seconds, run.command.peak_mb))
    return {
        preset: curve(
            [voxels for voxels, _, _ in runs], [s for _, s, _ in runs], [peak for _, _, peak in runs], base_mb
        )
        for preset, runs in found.items()
    }


def of_layers(
    option: str, counts: Sequence[int], others: Report, repeat: int, base_mb: float, tell: Tell
) -> Report:
    """The layers with so many control points or labels per axis, the other sizes as given.

    Args:
        option: --control-points or --labels; sizes of the curve are the cubes of `counts`.
        others: the options that stay.
    """
    seconds, peaks = [], []
    for count in counts:
        tell(f"layers, {option} {count}")
        options = {**others, option: count, "--repeat": repeat, "--device": "cpu"}
        arguments = [item for pair in options.items() for item in pair]
        report = run_json("pddnet", ["bench", "layers", *arguments, "--json"]).report
        seconds.append(statistics.median(report["all_seconds"]))
        peaks.append(report["peak_mb"])
    return curve([count**3 for count in counts], seconds, peaks, base_mb) | {"counts": list(counts)}


def peak_of_nothing() -> float:
    """Megabytes of Python, PyTorch and SimpleITK, loaded."""
    return run_json("pddnet", ["info", "--json"]).peak_mb
