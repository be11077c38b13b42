"""How good a registration is, on labels, landmarks and the field: one result for people and for programs."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pddnet.errors import InputError
from pddnet.metrics import (
    FieldQuality,
    dice,
    jacobian_determinant,
    surface_distances,
    target_registration_error,
)
from pddnet.volume import LabelMap
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, resample

LandmarkPairs = tuple[torch.Tensor, torch.Tensor]
_IDENTITY = AffineTransform.identity()
_COLUMNS = {"dice": "Dice", "hd95": "HD95 mm", "assd": "ASSD mm"}


@dataclass(frozen=True)
class LabelScores:
    """Agreement of one label in two maps: Dice, 0 to 1; HD95 and ASSD in mm, infinite if one map lacks it."""

    dice: float
    hd95: float
    assd: float

    @classmethod
    def mean(cls, scores: Collection[LabelScores]) -> LabelScores:
        """The mean over several labels."""
        return cls(*(sum(getattr(s, key) for s in scores) / len(scores) for key in _COLUMNS))


@dataclass(frozen=True)
class Evaluation:
    """What was measured; empty or None where there was nothing to measure it on.

    Args:
        names: what the compared labels are called.
        before, after: scores by label without and with the registration.
        not_compared: labels that occur in one scan only, so that no registration could make them agree.
        quality: plausibility of the transform.
        landmarks_before, landmarks_after: distance in mm of each pair.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    before: Mapping[int, LabelScores] = field(default_factory=dict)
    after: Mapping[int, LabelScores] = field(default_factory=dict)
    not_compared: tuple[int, ...] = ()
    quality: FieldQuality | None = None
    landmarks_before: tuple[float, ...] = ()
    landmarks_after: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Tables and lists for JSON; numbers may be infinite."""
        stages = [(when, s) for when, s in (("before", self.before), ("after", self.after)) if s]
        return {
            "labels": {
                str(label): {"name": self.names[label], **{when: asdict(s[label]) for when, s in stages}}
                for label in self.after
            },
            "mean": {when: asdict(LabelScores.mean(s.values())) for when, s in stages},
            "not_compared": list(self.not_compared),
            "field": self.quality and asdict(self.quality),
            "landmarks_mm": {"before": list(self.landmarks_before), "after": list(self.landmarks_after)},
        }

    def table(self) -> str:
        """The same for reading: a row for each label, `before -> after`."""
        lines = self._label_lines() if self.after else []
        if self.not_compared:
            lines.append(f"in one scan only, not compared: {', '.join(map(str, self.not_compared))}")
        if self.quality:
            lines.append(
                f"folding {100 * self.quality.folding_fraction:.3f} %, "
                f"Jacobian std {self.quality.jacobian_std:.3f}, log {self.quality.log_jacobian_std:.3f}"
            )
        if self.landmarks_after:
            pairs = len(self.landmarks_after)
            before, after = sum(self.landmarks_before) / pairs, sum(self.landmarks_after) / pairs
            lines.append(f"landmarks miss by {before:.2f} -> {after:.2f} mm on average ({pairs} pairs)")
        return "\n".join(lines)

    def _label_lines(self) -> list[str]:
        rows = [(self.names[label], self.before.get(label), self.after[label]) for label in self.after]
        mean_before = LabelScores.mean(self.before.values()) if self.before else None
        rows.append(("mean", mean_before, LabelScores.mean(self.after.values())))
        return [f"{'label':<24}" + "".join(f"{title:>20}" for title in _COLUMNS.values()), *map(_line, rows)]


def evaluate(
    fixed_labels: LabelMap | None = None,
    moving_labels: LabelMap | None = None,
    warped_labels: LabelMap | None = None,
    transform: SpatialTransform | None = None,
    landmarks: LandmarkPairs | None = None,
) -> Evaluation:
    """Measure a registration on whatever there is.

    Args:
        fixed_labels: segmentation of the fixed scan.
        moving_labels: segmentation of the moving scan, warped by `transform` unless already warped.
        warped_labels: the moving segmentation on the fixed grid after the registration.
        transform: fixed -> moving point; its folding is judged on the `fixed_labels` grid, or its own.
        landmarks: fixed and moving points, both (N, 3), mm, LPS.

    Raises:
        InputError: what is given does not suffice to measure anything, or labels lie on another grid.
    """
    if not warped_labels and fixed_labels and moving_labels and transform:
        warped_labels = resample(moving_labels, fixed_labels.geometry, transform)
    if bool(fixed_labels) != bool(warped_labels) or (moving_labels and not fixed_labels):
        raise InputError(
            "labels need fixed labels, and warped ones or moving ones and a transform; give both"
        )
    if landmarks and not transform:
        raise InputError("landmarks are judged by where a transform takes them; give the transform too")
    if not fixed_labels and not transform:
        raise InputError("there is nothing to measure; give labels, or a transform")
    judged = Evaluation()
    if fixed_labels and warped_labels:
        judged = _judge_labels(fixed_labels, moving_labels, warped_labels)
    return replace(
        judged,
        quality=_quality(transform, fixed_labels) if transform else None,
        landmarks_before=_distances(landmarks, _IDENTITY),
        landmarks_after=_distances(landmarks, transform or _IDENTITY),
    )


def read_landmarks(path: Path) -> LandmarkPairs:
    """Fixed and moving points, both (N, 3), float64, mm, LPS, from a CSV file.

    Each row holds fixed x, y, z, moving x, y, z; a first row that is no numbers is taken for column names.

    Raises:
        InputError: the file is missing or holds anything but rows of six numbers.
    """
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8").splitlines()) if row]
        numbers = [[float(cell) for cell in row] for row in rows[0 if _is_number(rows[0][0]) else 1 :]]
        points = torch.tensor(numbers, dtype=torch.float64).view(len(numbers), 2, 3)
        if not numbers or not bool(torch.isfinite(points).all()):
            raise ValueError("no rows, or a number that is not finite")
    except OSError as error:
        raise InputError(f"{path} cannot be read; check the spelling and the folder") from error
    except (ValueError, RuntimeError, IndexError, csv.Error) as error:
        needed = "rows of six numbers (fixed x, y, z, moving x, y, z in mm, LPS)"
        raise InputError(f"{path} is not a table of landmarks; {needed} are needed") from error
    return points[:, 0], points[:, 1]


def _judge_labels(fixed: LabelMap, moving: LabelMap | None, warped: LabelMap) -> Evaluation:
    here, there = set(fixed.labels), set(moving.labels if moving else fixed.labels)
    compared = sorted(here & there)
    if not compared:
        raise InputError(
            f"the scans share no label ({sorted(here)} and {sorted(there)}); give maps of the same codes"
        )
    unregistered = resample(moving, fixed.geometry, _IDENTITY) if moving else None
    return Evaluation(
        names={label: fixed.names.get(label) or warped.name(label) for label in compared},
        before=_scores(fixed, unregistered, compared) if unregistered else {},
        after=_scores(fixed, warped, compared),
        not_compared=tuple(sorted(here ^ there)),
    )


def _scores(fixed: LabelMap, other: LabelMap, labels: Collection[int]) -> dict[int, LabelScores]:
    overlap, distances = dice(fixed, other), surface_distances(fixed, other)
    return {n: LabelScores(overlap[n], distances[n].hd95, distances[n].assd) for n in labels}


def _quality(transform: SpatialTransform, fixed_labels: LabelMap | None) -> FieldQuality | None:
    grid = fixed_labels.geometry if fixed_labels else None
    if isinstance(transform, DisplacementField):
        return FieldQuality.of(jacobian_determinant(transform, grid))
    return FieldQuality.of(jacobian_determinant(DisplacementField.sampled(transform, grid))) if grid else None


def _distances(landmarks: LandmarkPairs | None, transform: SpatialTransform) -> tuple[float, ...]:
    return tuple(target_registration_error(*landmarks, transform).tolist()) if landmarks else ()


def _line(row: tuple[str, LabelScores | None, LabelScores]) -> str:
    name, before, after = row
    cells = [
        f"{getattr(before, key):.3f} -> {getattr(after, key):.3f}" if before else f"{getattr(after, key):.3f}"
        for key in _COLUMNS
    ]
    return f"{name[:23]:<24}" + "".join(f"{cell:>20}" for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
