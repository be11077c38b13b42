"""Register the real scans under ../shared/data and write Dice, regularity and time to docs/results.md.

    python Testing/results/real_scans.py [--data ../shared/data] [--weights FILE]

"Before" is the overlap after putting the centres of the two fields of view onto each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import machine, parser_of, table, write_section

import pddnet
from pddnet.config import available_presets
from pddnet.interop.simpleitk import read_label_map, read_volume
from pddnet.metrics import dice, field_quality
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, resample

HIPPOCAMPUS_PAIRS = 20
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
    head = [
        "preset",
        "moving",
        "fixed",
        "Dice before",
        "after",
        "folding %",
        "std(Jac)",
        "s",
        "peak MB",
        "started from",
    ]
    rows = []
    for o in outcomes:
        numbers = (
            f"{o.mean_before:.3f}",
            f"{o.mean_after:.3f}",
            f"{o.folding_percent:.4f}",
            f"{o.jacobian_std:.2f}",
        )
        cost = (f"{o.seconds:.1f}", f"{o.peak_memory_mb:.0f}")
        rows.append([o.preset, o.moving, o.fixed, *numbers, *cost, o.start])
    return table(head, rows)


def label_table(outcomes: list[Outcome], names: dict[int, str]) -> list[str]:
    """A row for each label: before, then after by each preset, both ways."""
    presets = list(dict.fromkeys(o.preset for o in outcomes))
    rows = []
    for label in sorted(set().union(*(o.after for o in outcomes))):
        first = [o for o in outcomes if o.preset == presets[0]]
        cells = [" / ".join(f"{o.before[label]:.2f}" for o in first)]
        for preset in presets:
            cells.append(" / ".join(f"{o.after[label]:.2f}" for o in outcomes if o.preset == preset))
        rows.append([names.get(label, str(label)), *cells])
    return table(["label", "before", *presets], rows)


def mean_row(preset: str, outcomes: list[Outcome]) -> str:
    """One sentence over several registrations."""
    after = [o.mean_after for o in outcomes]
    return (
        f"* `{preset}`, mean over {len(outcomes)} pairs: {np.mean([o.mean_before for o in outcomes]):.3f} before, "
        f"**{np.mean(after):.3f}** after (lowest {min(after):.3f}, highest {max(after):.3f}), std(Jac) "
        f"{np.mean([o.jacobian_std for o in outcomes]):.2f}, {np.mean([o.seconds for o in outcomes]):.1f} s each."
    )


def labelled(
    folder: Path, name: str, pattern: str, kinds: tuple[str, str], names: dict[int, str]
) -> list[Subject]:
    """Subjects a and b of a folder."""
    return [
        subject(f"{name}-{s}", *(folder / pattern.format(subject=s, kind=kind) for kind in kinds), names)
        for s in "ab"
    ]


def main() -> None:
    """Run everything and write the sections."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--weights", type=Path, help="published mind2 weights, for the pdd-net-2019 rows")
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    names = json.loads((data / "abdomen-ct" / "organs.json").read_text())
    organs = {int(key): name for key, name in names.items()}
    a, b = labelled(
        data / "abdomen-ct", "patient", "patient-{subject}-{kind}.nii.gz", ("ct", "organs"), organs
    )
    abdomen = [o for preset in ("abdomen-ct", "fast", "generic") for o in both_ways(a, b, preset)]
    if arguments.weights:
        abdomen += both_ways(a, b, "pdd-net-2019", arguments.weights)
    made = f"{machine()}."
    write_section(out, "abdomen", [made, "", *summary_table(abdomen), "", *label_table(abdomen, organs)])
    one, two = labelled(data / "brain-mr", "subject", "subject-{subject}-{kind}.nii.gz", ("t1", "aseg"), {})
    brain = [o for preset in ("brain-mr", "generic") for o in both_ways(one, two, preset)]
    write_section(out, "brain", [made, "", *summary_table(brain)])
    chosen = [p for p in ("small-structure", "generic") if p in available_presets()]
    pairs = list(hippocampus(data / "hippocampus-mr"))
    small = [[run(fixed, moving, preset) for fixed, moving in pairs] for preset in chosen]
    write_section(
        out, "hippocampus", [made, "", *(mean_row(p, o) for p, o in zip(chosen, small, strict=True))]
    )


if __name__ == "__main__":
    main()
