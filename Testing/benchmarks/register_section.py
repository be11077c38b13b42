"""Whole registrations, from the command's start to the last file written, of usual scans and of the largest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scans import Size, refined_scan
from pddnet.benchmarks.registering import PairFiles, RegisterRun, register_files, register_report

Tell = Callable[[str], None]
Report = dict[str, Any]
LARGE: Size = (512, 512, 600)


def registrations(
    files: PairFiles, folder: Path, presets: Sequence[str], rounds: int, tell: Tell
) -> list[Report]:
    """The pair registered with each preset in turn, `rounds` times; medians by preset."""
    runs: dict[str, list[RegisterRun]] = {preset: [] for preset in presets}
    for number in range(1, rounds + 1):
        for preset in presets:
            tell(f"pddnet register --preset {preset}, {number} of {rounds}")
            runs[preset].append(register_files(files, folder / f"out-{preset}", preset, "cpu"))
    return [register_report(files, runs[preset]) for preset in presets]


def large_registrations(
    files: PairFiles, folder: Path, presets: Sequence[str], size: Size, tell: Tell
) -> list[Report]:
    """The patients of a pair scanned with `size` voxels, and as they are: only the number of voxels differs."""
    tell(f"writing two scans of {'x'.join(map(str, size))} voxels")
    fine = PairFiles.in_folder(folder)
    refined_scan(files.fixed, fine.fixed, size)
    refined_scan(files.moving, fine.moving, size)
    reports = []
    for preset in presets:
        tell(f"pddnet register --preset {preset}, {'x'.join(map(str, size))} voxels")
        large = _without_labels(fine, folder / "large", preset)
        usual = _without_labels(files, folder / "usual", preset)
        reports.append(
            {
                "preset": preset,
                "size": size,
                "voxels": math.prod(size),
                "large": large,
                "usual": usual,
                "time_ratio": large["seconds"] / usual["seconds"],
            }
        )
    return reports


def _without_labels(files: PairFiles, out: Path, preset: str) -> Report:
    run = register_files(files, out, preset, "cpu", with_labels=False)
    found = run.command.report
    return {
        "seconds": run.seconds,
        "stages": found["stage_seconds"],
        "command_seconds": run.command.seconds,
        "peak_mb": run.command.peak_mb,
        "registration_peak_mb": found["peak_memory_mb"],
        "folding_percent": found["folding_percent"],
    }
