"""A made-up pair of scans in files, registered by the command line in a process of its own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pddnet.benchmarks.child import ChildRun, run_json
from pddnet.errors import InputError
from pddnet.interop.simpleitk import read_label_map, write_label_map, write_volume
from pddnet.metrics import dice
from pddnet.synthetic import synthetic_patient
from pddnet.volume import LabelMap

Size = tuple[int, int, int]
SEEDS = (6, 5)  # of the fixed and the moving patient: those of the demo
_SMALLEST = 16


@dataclass(frozen=True)
class PairFiles:
    """Where a pair of scans and their labels lie."""

    fixed: Path
    moving: Path
    fixed_labels: Path
    moving_labels: Path

    @classmethod
    def in_folder(cls, folder: Path) -> PairFiles:
        """The names that `write_pair` gives."""
        names = ("fixed", "moving", "fixed-labels", "moving-labels")
        return cls(*(folder / f"{name}.nii.gz" for name in names))


@dataclass(frozen=True)
class RegisterRun:
    """One `pddnet register`: what it reported, seconds and peak memory of the command, labels it warped."""

    command: ChildRun
    warped_labels: Path

    @property
    def seconds(self) -> float:
        """Of the registration alone."""
        return float(self.command.report["seconds"])


def write_pair(folder: Path, size: Size, spacing_mm: float, seeds: tuple[int, int] = SEEDS) -> PairFiles:
    """Make two synthetic patients of `size` voxels (x, y, z) and write scans and labels into `folder`.

    Raises:
        InputError: a size below 16 or a spacing that is not positive.
    """
    if min(size) < _SMALLEST or not 0 < spacing_mm < math.inf:
        raise InputError(
            f"size is {'x'.join(map(str, size))} and spacing {spacing_mm} mm; at least {_SMALLEST} voxels "
            "along each axis and a positive spacing are needed"
        )
    files = PairFiles.in_folder(folder)
    scans = ((files.fixed, files.fixed_labels), (files.moving, files.moving_labels))
    for seed, (scan, labels) in zip(seeds, scans, strict=True):
        patient = synthetic_patient(seed, size, spacing_mm)
        write_volume(scan, patient.ct)
        write_label_map(labels, patient.labels)
    return files


def register_files(
    files: PairFiles,
    out: Path,
    preset: str,
    device: str = "auto",
    threads: int | None = None,
    with_labels: bool = True,
) -> RegisterRun:
    """Run `pddnet register` on a pair, its results in the folder `out`; errors as `run_json` raises them."""
    options = {
        "--fixed": files.fixed,
        "--moving": files.moving,
        "--out": out,
        "--preset": preset,
        "--device": device,
    }
    if with_labels:
        options["--labels"] = files.moving_labels
    arguments = [item for option in options.items() for item in option]
    command = run_json("pddnet", ["register", *arguments, "--json"], threads)
    return RegisterRun(command, out / "warped-labels.nii.gz")


def benchmark_register(
    folder: Path,
    *,
    preset: str,
    size: Size,
    spacing_mm: float,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    repeat: int = 1,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Make a pair in `folder`, register it `repeat` times and report; see `register_report`.

    Args:
        seed: 0 for the demo's pair; each other number is another pair.
        tell: told in words what begins.
    """
    tell(f"making two synthetic patients of {'x'.join(map(str, size))} voxels")
    files = write_pair(folder, size, spacing_mm, (SEEDS[0] + 2 * seed, SEEDS[1] + 2 * seed))
    runs = []
    for number in range(1, repeat + 1):
        tell(f"pddnet register --preset {preset}, {number} of {repeat}")
        runs.append(register_files(files, folder / "out", preset, device, threads))
    report = register_report(files, runs)
    return report | {"size": size, "spacing_mm": spacing_mm, "voxels": math.prod(size)}


def register_report(files: PairFiles, runs: Sequence[RegisterRun]) -> dict[str, Any]:
    """What `pddnet bench register --json` prints: times are medians, stages those of the run of median length."""
    middle = sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]
    found = middle.command.report
    fixed = read_label_map(files.fixed_labels)
    return {
        "preset": found["preset"],
        "device": found["device"],
        "seconds": middle.seconds,
        "stages": found["stage_seconds"],
        "command_seconds": statistics.median(run.command.seconds for run in runs),
        "peak_mb": max(run.command.peak_mb for run in runs),
        "registration_peak_mb": found["peak_memory_mb"],
        "all_seconds": [run.seconds for run in runs],
        "all_command_seconds": [run.command.seconds for run in runs],
        "dice_before": _mean_dice(fixed, files.moving_labels),
        "dice_after": _mean_dice(fixed, middle.warped_labels),
        "folding_percent": found["folding_percent"],
        "jacobian_std": found["jacobian_std"],
        "log_jacobian_std": found["log_jacobian_std"],
    }


def _mean_dice(fixed: LabelMap, other: Path) -> float:
    """Mean over the fixed scan's labels; not a number where a small scan shows none."""
    overlaps = dice(fixed, read_label_map(other))
    return statistics.fmean(overlaps[label] for label in fixed.labels) if fixed.labels else math.nan
