"""Register the real scans under ../shared/data and write the Dice of every label to docs/results.md.

    python Testing/results/real_scans.py [--data ../shared/data] [--weights FILE] [--out docs/results.md]

"Before" is the overlap after putting the centres of the two fields of view onto each other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import pddnet
from pddnet.interop.simpleitk import read_label_map, read_volume
from pddnet.metrics import dice, field_quality
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, resample

ROOT = Path(__file__).resolve().parents[2]
HIPPOCAMPUS_PAIRS = 10
SEED = 2019


@dataclass(frozen=True)
class Subject:
    """One labelled scan."""

    name: str
    scan: Volume
    labels: LabelMap


@dataclass(frozen=True)
class Outcome:
    """One registration: Dice by label before and after, and what it cost."""

    fixed: str
    moving: str
    preset: str
    before: dict[int, float]
    after: dict[int, float]
    folding_percent: float
    jacobian_std: float
    seconds: float
    peak_memory_mb: float
    start: str

    @property
    def mean_before(self) -> float:
        """Mean Dice before."""
        return float(np.mean(list(self.before.values())))

    @property
    def mean_after(self) -> float:
        """Mean Dice after."""
        return float(np.mean(list(self.after.values())))


def subject(name: str, scan: Path, labels: Path, names: dict[int, str] | None = None) -> Subject:
    """Read one labelled scan."""
    return Subject(name, read_volume(scan), read_label_map(labels, names))


def run(fixed: Subject, moving: Subject, preset: str, weights: Path | None = None) -> Outcome:
    """Register one pair and compare the labels both scans have."""
    result = pddnet.register(fixed.scan, moving.scan, preset=preset, weights=weights)
    centres = AffineTransform.translation(moving.scan.geometry.centre - fixed.scan.geometry.centre)
    common = sorted(set(fixed.labels.labels) & set(moving.labels.labels))
    before = dice(fixed.labels, resample(moving.labels, fixed.scan.geometry, centres))
    after = dice(fixed.labels, result.displacement.warp(moving.labels))
    quality = field_quality(result.displacement)
    outcome = Outcome(
        fixed.name,
        moving.name,
        preset,
        {label: before[label] for label in common},
        {label: after[label] for label in common},
        100 * quality.folding_fraction,
        quality.jacobian_std,
        result.seconds,
        result.peak_memory_mb,
        result.starts[0].name if result.starts else "none",
    )
    print(
        f"{preset}: {moving.name} onto {fixed.name}: {outcome.mean_before:.3f} -> {outcome.mean_after:.3f}",
        flush=True,
    )
    return outcome


def both_ways(a: Subject, b: Subject, preset: str, weights: Path | None = None) -> list[Outcome]:
    """a onto b, then b onto a."""
    return [run(b, a, preset, weights), run(a, b, preset, weights)]


def hippocampus(folder: Path) -> Iterator[tuple[Subject, Subject]]:
    """Random pairs of different subjects, the same ones each time."""
    scans = sorted((folder / "images").glob("*.nii.gz"))
    generator = np.random.default_rng(SEED)
    names = {1: "anterior", 2: "posterior"}
    for _ in range(HIPPOCAMPUS_PAIRS):
        pair = [scans[i] for i in generator.choice(len(scans), 2, replace=False)]
        fixed, moving = (subject(p.name.split(".")[0], p, folder / "labels" / p.name, names) for p in pair)
        yield fixed, moving


def summary_table(outcomes: list[Outcome]) -> list[str]:
    """A row for each registration."""
    rows = [
        "| preset | moving | fixed | Dice before | after | folding % | std(Jac) | s | peak MB | started from |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {o.preset} | {o.moving} | {o.fixed} | {o.mean_before:.3f} | {o.mean_after:.3f} | {o.folding_percent:.4f} "
        f"| {o.jacobian_std:.2f} | {o.seconds:.1f} | {o.peak_memory_mb:.0f} | {o.start} |"
        for o in outcomes
    ]
    return rows


def label_table(outcomes: list[Outcome], names: dict[int, str]) -> list[str]:
    """A row for each label, a before and after for each registration."""
    heads = [f"{o.preset}: {o.moving} onto {o.fixed}" for o in outcomes]
    rows = ["| label | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for label in sorted(set().union(*(o.after for o in outcomes))):
        cells = [
            f"{o.before[label]:.2f} → {o.after[label]:.2f}" if label in o.after else "" for o in outcomes
        ]
        rows.append(f"| {names.get(label, str(label))} | " + " | ".join(cells) + " |")
    return rows


def mean_row(outcomes: list[Outcome]) -> str:
    """One sentence over several registrations."""
    after = [o.mean_after for o in outcomes]
    return (
        f"Mean over {len(outcomes)} pairs: {np.mean([o.mean_before for o in outcomes]):.3f} before, "
        f"**{np.mean(after):.3f}** after (lowest {min(after):.3f}), "
        f"{np.mean([o.seconds for o in outcomes]):.1f} s each."
    )


def main() -> None:
    """Run everything and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--weights", type=Path, help="published mind2 weights, for the pdd-net-2019 rows")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results.md")
    arguments = parser.parse_args()
    data = arguments.data
    organs = {
        int(key): name for key, name in json.loads((data / "abdomen-ct" / "organs.json").read_text()).items()
    }
    a, b = (
        subject(
            f"patient-{p}",
            *(data / "abdomen-ct" / f"patient-{p}-{kind}.nii.gz" for kind in ("ct", "organs")),
            organs,
        )
        for p in "ab"
    )
    abdomen = [o for preset in ("abdomen-ct", "fast", "generic") for o in both_ways(a, b, preset)]
    if arguments.weights:
        abdomen += both_ways(a, b, "pdd-net-2019", arguments.weights)
    one, two = (
        subject(
            f"subject-{s}", *(data / "brain-mr" / f"subject-{s}-{kind}.nii.gz" for kind in ("t1", "aseg"))
        )
        for s in "ab"
    )
    brain = [o for preset in ("brain-mr", "generic") for o in both_ways(one, two, preset)]
    small = [run(fixed, moving, "generic") for fixed, moving in hippocampus(data / "hippocampus-mr")]
    lines = [
        "# Results on real scans",
        "",
        "Made by `python Testing/results/real_scans.py --weights FILE` (the weights only for the pdd-net-2019 rows), "
        f"pddnet {pddnet.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {platform.system()}. "
        "*Before* is the overlap with the centres of both fields of view put onto each other. Times vary with what "
        "else the machine does; *peak MB* is the most the process held so far. "
        "The two abdomens were looked at "
        "while the engine was made, and choices such as the weights at the edge of a scan were compared on them: these "
        "are not held-out numbers.",
        "",
        "## Abdominal CT, two patients, 16 organs (model-made labels)",
        "",
        *summary_table(abdomen),
        "",
        *label_table(abdomen, organs),
        "",
        "## Brain T1 MR, two subjects, FreeSurfer aseg labels both have",
        "",
        *summary_table(brain),
        "",
        *label_table(brain, {}),
        "",
        f"## Hippocampus MR, {HIPPOCAMPUS_PAIRS} random pairs, preset `generic`",
        "",
        mean_row(small),
        "",
        *summary_table(small),
        "",
        *label_table(small, {1: "anterior", 2: "posterior"}),
        "",
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
