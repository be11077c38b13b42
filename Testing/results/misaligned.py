"""What the global stage is good for: real and made-up scans put where they do not belong, and what becomes of them.

    python Testing/results/misaligned.py [--data ../shared/data]

Writes a section of docs/results.md: how far a scan laid onto itself is off before and after the stage, in mm; the mean
Dice of two subjects before and after it and after a whole registration with and without it; and which headers turned
upside down are reported. A turned or shifted scan keeps its voxels and gets another header, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from report import machine, parser_of, table, write_section

import pddnet
from pddnet.config import load_preset
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry, Matrix
from pddnet.global_alignment import Alignment, CoarseScans, align_globally
from pddnet.grids import coarse_grids
from pddnet.interop.simpleitk import read_label_map, read_volume
from pddnet.metrics import dice
from pddnet.placed_scans import PlacedScan
from pddnet.preprocessing import Scaling, on_working_grid, resolved
from pddnet.synthetic import synthetic_patient
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, SpatialTransform, resample

TURNS = (10, 20, 30)  # degrees about each axis
SHIFTS = (40, 80)  # mm along a diagonal
SEED = 2019
SMALL = 0.2  # of these shifts for crops a few cm wide
SOME = {
    "none",
    "30° about L",
    "20° about P",
    "80 mm",
    "16 mm",
    "lower half",
}  # changes that pairs are registered with
HIPPOCAMPI = 4
PAIR_HEAD = (
    "pair",
    "preset",
    "change",
    "before",
    "global stage alone",
    "registered without",
    "registered with",
    "found by",
)
FLIPS = {
    "front to back": (1, -1, 1),
    "head to feet": (1, 1, -1),
    "turned over": (1, -1, -1),
    "left to right": (-1, 1, 1),
}


@dataclass(frozen=True)
class Subject:
    """One labelled scan."""

    name: str
    scan: Volume
    labels: LabelMap

    @classmethod
    def read(cls, name: str, scan: Path, labels: Path) -> Subject:
        """From two files."""
        return cls(name, read_volume(scan), read_label_map(labels))


@dataclass(frozen=True)
class Pair:
    """Two subjects, the preset for them, and how far to shift: 1 for trunks and heads, less for small crops."""

    fixed: Subject
    moving: Subject
    preset: str
    scale: float = 1.0

    @property
    def name(self) -> str:
        """moving onto fixed"""
        return f"{self.moving.name} onto {self.fixed.name}"


@dataclass(frozen=True)
class Change:
    """What is done to a moving scan: a 4x4 matrix of its points about its centre (mm, LPS), and a cut along S."""

    name: str
    matrix: Matrix
    kept: tuple[float, float] = (0.0, 1.0)

    def of(self, geometry: ImageGeometry) -> Matrix:
        """The matrix about the middle of a field of view."""
        centre = np.eye(4)
        centre[:3, 3] = geometry.centre
        return np.asarray(centre @ self.matrix @ np.linalg.inv(centre))

    def applied(self, moved: Subject) -> Subject:
        """The subject with scan and labels changed."""
        geometry = moved.scan.geometry
        start, size = _part(geometry, self.kept)
        window = tuple(slice(a, a + n) for a, n in zip(reversed(start), reversed(size), strict=True))
        there = _carried(geometry.cropped(start, size), self.of(geometry))
        return Subject(
            moved.name,
            Volume(moved.scan.data[window].contiguous(), there),
            LabelMap(moved.labels.data[window].contiguous(), there, moved.labels.names),
        )


def changes(scale: float) -> Iterator[Change]:
    """Nothing, turns, shifts, half a field of view, and all of it at once."""
    yield Change("none", np.eye(4))
    for degrees in TURNS:
        for axis in range(3):
            yield Change(f"{degrees}° about {'LPS'[axis]}", turn(degrees, axis))
    for shift in SHIFTS:
        yield Change(f"{shift * scale:g} mm", translation(shift * scale * np.array([0.6, -0.48, 0.64])))
    yield Change("lower half", np.eye(4), (0.0, 0.5))
    yield Change("upper half", np.eye(4), (0.5, 1.0))
    together = translation(60 * scale * np.array([0.6, -0.48, 0.64])) @ turn(20, 0)
    yield Change(f"lower 60 %, 20° about L, {60 * scale:g} mm", together, (0.0, 0.6))


def turn(degrees: float, axis: int) -> Matrix:
    """A rotation about an axis of LPS, 4x4."""
    matrix, angle = np.eye(4), np.deg2rad(degrees)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def translation(shift: Matrix) -> Matrix:
    """A shift in mm LPS, 4x4."""
    return AffineTransform.translation(shift).matrix


def stage(fixed: Volume, moving: Volume, preset_name: str) -> Alignment:
    """What the global stage finds from the scanner's coordinates."""
    preset = load_preset(preset_name)
    intensity = resolved(preset.intensity, fixed, moving)
    grids = coarse_grids(fixed.geometry, moving.geometry, np.eye(4), preset)
    placed = [
        PlacedScan(
            on_working_grid(
                scan, None, grid, AffineTransform.identity(), Scaling.of(scan, intensity), torch.device("cpu")
            ),
            grid,
        )
        for scan, grid in zip((fixed, moving), grids, strict=True)
    ]
    scans = CoarseScans(placed[0], placed[1], moving.geometry.centre - fixed.geometry.centre)
    return align_globally(scans, "affine", True, lambda: None)


def overlap(pair: Pair, through: SpatialTransform) -> float:
    """Mean Dice over the labels that both have."""
    common = sorted(set(pair.fixed.labels.labels) & set(pair.moving.labels.labels))
    scores = dice(pair.fixed.labels, resample(pair.moving.labels, pair.fixed.scan.geometry, through))
    return float(np.mean([scores[label] for label in common])) if common else float("nan")


def off_by(geometry: ImageGeometry, found: Matrix, truth: Matrix) -> float:
    """Mean distance in mm between two affine maps of the inner 70 % of a field of view."""
    points = geometry.centre + 0.7 * (geometry.samples(7) - geometry.centre)
    apart = np.append(points, np.ones((len(points), 1)), 1) @ (found - truth).T
    return float(np.linalg.norm(apart[:, :3], axis=1).mean())


def self_rows(pairs: list[Pair]) -> list[str]:
    """How far each scan, laid onto itself, is off before and after the stage: mm, over all changes."""
    rows = []
    for one in pairs:
        found = {change.name: onto_itself(one, change) for change in changes(one.scale)}
        before, after = (np.median([pair[n] for pair in found.values()]) for n in (0, 1))
        worst = max(found, key=lambda name: found[name][1])
        cells = [f"{before:.1f}", f"{after:.1f}", f"{found[worst][1]:.1f}", worst]
        rows.append([one.fixed.name, str(len(found)), *cells])
        print(rows[-1], flush=True)
    return table(["scan", "changes", "median before", "median after", "largest after", "that is"], rows)


def onto_itself(one: Pair, change: Change) -> tuple[float, float]:
    """How far the fixed scan is off its changed self, mm, before and after the stage."""
    moving = change.applied(one.fixed)
    start = stage(one.fixed.scan, moving.scan, one.preset).starts[0]
    truth = change.of(one.fixed.scan.geometry)
    # judged where the changed scan shows something
    shown = _carried(moving.scan.geometry, np.asarray(np.linalg.inv(truth)))
    return off_by(shown, np.eye(4), truth), off_by(shown, start.transform.matrix, truth)


def pair_rows(pairs: list[Pair], wanted: set[str]) -> list[str]:
    """Mean Dice from the scanner's coordinates, after the stage, and after registrations without and with it."""
    rows = []
    for pair, change in ((p, c) for p in pairs for c in changes(p.scale) if c.name in wanted):
        changed = replace(pair, moving=change.applied(pair.moving))
        fixed, moving = changed.fixed.scan, changed.moving.scan
        first = [pair.name, pair.preset, change.name]
        try:
            results = [
                pddnet.register(fixed, moving, preset=pair.preset, global_stage=on) for on in (False, True)
            ]
        except InputError as error:  # shifted out of the field of view
            rows.append([*first, f"refused: {str(error).split(';')[0]}", "", "", "", ""])
            continue
        start = results[1].starts[0]
        transforms = (
            AffineTransform.identity(),
            start.transform,
            *(result.displacement for result in results),
        )
        rows.append([*first, *(f"{overlap(changed, through):.3f}" for through in transforms), start.name])
        print(rows[-1], flush=True)
    return table(PAIR_HEAD, rows)


def flip_rows(pairs: list[Pair]) -> list[str]:
    """Which flips of the moving header are reported, and that nothing is for the header as it is."""
    rows = []
    for pair in pairs:
        cells = []
        for signs in ((1, 1, 1), *FLIPS.values()):
            change = Change("flip", np.diag([*map(float, signs), 1.0]))
            found = stage(pair.fixed.scan, change.applied(pair.moving).scan, pair.preset)
            cells.append("reported" if found.warnings else "-")
        rows.append([pair.name, *cells])
        print(rows[-1], flush=True)
    return table(["pair", "as it is", *FLIPS], rows)


def main() -> None:
    """Measure everything and write the section."""
    arguments = parser_of(__doc__ or "").parse_args()
    large, small = trunks_and_heads(arguments.data), hippocampi(arguments.data, HIPPOCAMPI)
    lines = [
        f"{machine()}.",
        "",
        "One scan onto itself, its header changed; distances in mm inside what the changed scan shows:",
        "",
        *self_rows([*large, small[0]]),
        "",
        "Two subjects, the header of the moving one changed; mean Dice:",
        "",
        *pair_rows([*large, *small], SOME),
        "",
        "Headers that were flipped:",
        "",
        *flip_rows([*large, *small]),
    ]
    write_section(arguments.out, "misaligned", lines)


def trunks_and_heads(data: Path) -> list[Pair]:
    """Two made-up patients, the two abdomens and the two brains, both ways."""
    made_up = []
    for name, seed in (("made-up 5", 5), ("made-up 6", 6)):
        patient = synthetic_patient(seed, (128, 108, 150), 3.0, "portal-venous")
        made_up.append(Subject(name, patient.ct, patient.labels))
    abdomen, brain = data / "abdomen-ct", data / "brain-mr"
    patients = [
        Subject.read(
            f"patient-{p}", abdomen / f"patient-{p}-ct.nii.gz", abdomen / f"patient-{p}-organs.nii.gz"
        )
        for p in "ab"
    ]
    heads = [
        Subject.read(f"subject-{s}", brain / f"subject-{s}-t1.nii.gz", brain / f"subject-{s}-aseg.nii.gz")
        for s in "ab"
    ]
    return [
        Pair(fixed, moving, preset)
        for (one, two), preset in ((made_up, "fast"), (patients, "fast"), (heads, "brain-mr"))
        for fixed, moving in ((one, two), (two, one))
    ]


def hippocampi(data: Path, count: int) -> list[Pair]:
    """Random pairs, the same ones each time."""
    scans, generator = (
        sorted((data / "hippocampus-mr" / "images").glob("*.nii.gz")),
        np.random.default_rng(SEED),
    )
    pairs = []
    for _ in range(count):
        files = [scans[i] for i in generator.choice(len(scans), 2, replace=False)]
        both = [
            Subject.read(file.name.split(".")[0], file, data / "hippocampus-mr" / "labels" / file.name)
            for file in files
        ]
        pairs.append(Pair(both[0], both[1], "generic", SMALL))
    return pairs


def _carried(geometry: ImageGeometry, matrix: Matrix) -> ImageGeometry:
    """The same voxels where a 4x4 matrix takes them."""
    direction = matrix[:3, :3] @ np.asarray(geometry.direction)
    origin = matrix[:3, :3] @ np.asarray(geometry.origin) + matrix[:3, 3]
    return replace(geometry, origin=tuple(origin), direction=tuple(map(tuple, direction)))


def _part(geometry: ImageGeometry, kept: tuple[float, float]) -> tuple[list[int], list[int]]:
    """First index and size (x, y, z) of a share of the field of view along the axis that runs most nearly along S."""
    along = np.asarray(geometry.direction)[2]
    axis = int(np.abs(along).argmax())
    low, high = kept if along[axis] > 0 else (1 - kept[1], 1 - kept[0])
    start, size = [0, 0, 0], list(geometry.size)
    start[axis] = round(low * size[axis])
    size[axis] = round(high * geometry.size[axis]) - start[axis]
    return start, size


if __name__ == "__main__":
    main()
