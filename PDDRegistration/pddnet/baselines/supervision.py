"""What the networks we compare with share: labels of a pair checked, values carried along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pddnet.errors import InputError
from pddnet.learning.trainable import TrainingPair


@dataclass(frozen=True)
class PairLabels:
    """The labels of a pair: one-hot (1, N, D, H, W) each, and class weights (N,), 1 where none are given."""

    fixed: torch.Tensor
    moving: torch.Tensor
    weights: torch.Tensor


def check_pair(pair: TrainingPair, method: str, classes: int | None = None) -> PairLabels:
    """The labels of a pair.

    Args:
        method: who asks, for the message.
        classes: how many there must be, background included; any number by default.

    Raises:
        InputError: a scan without labels; images, labels or weights that do not fit one another or `classes`.
    """
    fixed, moving, weights = pair.fixed_one_hot, pair.moving_one_hot, pair.class_weights
    if fixed is None or moving is None:
        which = "fixed" if fixed is None else "moving"
        raise InputError(f"the {which} scan has no labels; {method} learns from labels of both: add them")
    shapes = [tuple(pair.fixed_image.shape[2:]), tuple(pair.moving_image.shape[2:])]
    shapes += [tuple(one_hot.shape[2:]) for one_hot in (fixed, moving)]
    if len(set(shapes)) != 1 or fixed.shape[:2] != moving.shape[:2]:
        raise InputError(
            f"images and labels have shapes {shapes} and {tuple(fixed.shape[:2])}, {tuple(moving.shape[:2])}; "
            "one grid and the same classes for both scans are needed"
        )
    if classes is not None and fixed.shape[1] != classes:
        raise InputError(
            f"the labels have {fixed.shape[1]} classes and {method} was made for {classes}, background included; "
            f"set classes = {fixed.shape[1]}"
        )
    if weights is None:
        weights = fixed.new_ones(fixed.shape[1])
    if tuple(weights.shape) != (fixed.shape[1],):
        raise InputError(
            f"class_weights have shape {tuple(weights.shape)}; one for each of {fixed.shape[1]} classes is needed"
        )
    return PairLabels(fixed, moving, weights)


def sampled(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Values (1, C, D, H, W) at normalised positions (1, d, h, w, 3), the border's held outside: (1, C, d, h, w)."""
    return F.grid_sample(values.to(where.dtype), where, padding_mode="border", align_corners=True)
