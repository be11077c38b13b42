"""How well a registration does on some pairs of the training grid: Dice of warped labels, or the loss without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pddnet.correlation import displaced_positions
from pddnet.learning.pairs import Name, PairSource
from pddnet.learning.trainable import TrainableRegistration, TrainingPair, evaluating


@dataclass(frozen=True)
class Score:
    """What one validation found.

    Args:
        value: the larger the better: the mean Dice over pairs and classes, or minus the loss without labels.
        terms: what is worth logging, by name.
    """

    value: float
    terms: dict[str, float]


@torch.no_grad()
def validate(model: TrainableRegistration, source: PairSource, pairs: Sequence[Name]) -> Score:
    """Register pairs without augmentation and judge the results."""
    if source.class_weights is None:
        losses = [_loss(model, source.pair(*names)) for names in pairs]
        loss = sum(losses) / len(losses)
        return Score(-loss, {"loss": loss})
    overlaps = torch.stack([_overlap(model, source.pair(*names)) for names in pairs])  # (pairs, classes)
    by_class = overlaps.nanmean(0)
    mean = float(overlaps.nanmean())
    return Score(mean, {"dice": mean, **{f"dice {n}": float(d) for n, d in enumerate(by_class, 1)}})


def warped_classes(pair: TrainingPair, displacement: torch.Tensor) -> torch.Tensor:
    """The moving scan's classes at the nearest voxels of the displaced positions, 0 outside: (D, H, W), int64."""
    assert pair.moving_one_hot is not None  # `validate` looked
    classes = pair.moving_one_hot.argmax(1, keepdim=True).to(displacement.dtype)
    where = displaced_positions(displacement)
    return F.grid_sample(classes, where, mode="nearest", align_corners=True)[0, 0].long()


def overlap_of(fixed: torch.Tensor, warped: torch.Tensor, classes: int) -> torch.Tensor:
    """Dice of the classes 1 to `classes` - 1 of two maps (D, H, W), NaN where both lack one: (classes - 1,)."""
    scores = []
    for number in range(1, classes):
        a, b = fixed == number, warped == number
        total = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / total)
    return torch.stack(scores)


def _overlap(model: TrainableRegistration, pair: TrainingPair) -> torch.Tensor:
    assert pair.fixed_one_hot is not None  # `validate` looked
    displacement = model.displacement(pair.fixed_image, pair.moving_image)
    fixed = pair.fixed_one_hot.argmax(1)[0]
    return overlap_of(fixed, warped_classes(pair, displacement), pair.fixed_one_hot.shape[1]).cpu()


def _loss(model: TrainableRegistration, pair: TrainingPair) -> float:
    with evaluating(model):
        return float(sum(term.item() for term in model.losses(pair).values()))
