"""What is measured on one pair: overlap and distance of each label, regularity of the field, time and memory."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch

from pddnet.errors import InputError
from pddnet.evaluation import evaluate
from pddnet.volume import LabelMap
from pddnet.warp import SpatialTransform, resample


@dataclass(frozen=True)
class LabelScore:
    """One label: Dice, 0 to 1, and HD95 in mm, None where the registration moved the label out of the fixed scan."""

    label: int
    dice: float
    hd95: float | None


@dataclass(frozen=True)
class PairScores:
    """One registration, judged on the fixed scan's grid.

    Args:
        labels: those that both scans have, in rising order.
        jacobian_std, log_jacobian_std, folding_percent: as in `pddnet.metrics.FieldQuality`.
        seconds: from two scans in memory (for a program: in files) to the transform.
        peak_mb: the most memory the process held meanwhile, in 10^6 bytes; None where nobody can tell.
    """

    labels: tuple[LabelScore, ...]
    jacobian_std: float
    log_jacobian_std: float
    folding_percent: float
    seconds: float
    peak_mb: float | None

    @property
    def dice(self) -> float:
        """Mean over the labels."""
        return math.fsum(score.dice for score in self.labels) / len(self.labels)

    @property
    def hd95(self) -> float | None:
        """Mean over the labels that were not lost; None if all were."""
        found = [score.hd95 for score in self.labels if score.hd95 is not None]
        return math.fsum(found) / len(found) if found else None


def judged(
    fixed: LabelMap,
    moving: LabelMap,
    transform: SpatialTransform,
    counted: Collection[int],
    seconds: float,
    peak_mb: float | None,
) -> PairScores:
    """The scores of a transform (fixed -> moving, mm LPS).

    Args:
        fixed, moving: the scans' labels.
        counted: labels that count where both scans have them; none counts all.

    Raises:
        InputError: the scans share no label that counts.
    """
    shared = _shared(fixed, moving, counted)
    warped = resample(moving, fixed.geometry, transform)
    found = evaluate(
        fixed_labels=_only(fixed, shared), warped_labels=_only(warped, shared), transform=transform
    )
    quality = found.quality
    if quality is None:  # a transform is always judged
        raise RuntimeError("the transform was not judged; report this as an error of pddnet")
    scores = (
        LabelScore(label, score.dice, score.hd95 if math.isfinite(score.hd95) else None)
        for label, score in sorted(found.after.items())
    )
    return PairScores(
        labels=tuple(scores),
        jacobian_std=quality.jacobian_std,
        log_jacobian_std=quality.log_jacobian_std,
        folding_percent=100 * quality.folding_fraction,
        seconds=seconds,
        peak_mb=peak_mb,
    )


def _shared(fixed: LabelMap, moving: LabelMap, counted: Collection[int]) -> list[int]:
    here, there = set(fixed.labels), set(moving.labels)
    shared = sorted(here & there & set(counted) if counted else here & there)
    if not shared:
        raise InputError(
            f"the scans share no label that counts ({sorted(here)} and {sorted(there)}, counted {sorted(counted)}); "
            "give label maps of the same codes"
        )
    return shared


def _only(labels: LabelMap, wanted: Collection[int]) -> LabelMap:
    """The label map with all other labels made background."""
    kept = torch.isin(labels.data, torch.tensor(sorted(wanted), dtype=labels.data.dtype))
    return replace(labels, data=torch.where(kept, labels.data, 0))
