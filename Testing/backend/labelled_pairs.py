"""Tiny labelled pairs for tests of what is trained."""

from __future__ import annotations

import torch

from pddnet.learning.trainable import TrainingPair
from pddnet.losses import class_weights, one_hot

SHAPE = (16, 20, 18)


def boxes(shape: tuple[int, int, int] = SHAPE, shift: tuple[int, int, int] = (0, 0, 0)) -> torch.Tensor:
    """Two boxes, labels 1 and 2, (D, H, W), moved by whole voxels."""
    z, y, x = shift
    labels = torch.zeros(shape, dtype=torch.long)
    labels[3 + z : 9 + z, 4 + y : 11 + y, 3 + x : 8 + x] = 1
    labels[4 + z : 10 + z, 11 + y : 15 + y, 7 + x : 13 + x] = 2
    return labels


def pair_of(
    fixed: torch.Tensor, moving: torch.Tensor, classes: int = 3, dtype: torch.dtype = torch.float32
) -> TrainingPair:
    """Two label maps (D, H, W) as scans whose intensities are the labels and some noise."""
    images = [
        labels.to(dtype)[None, None] + 0.1 * torch.randn(1, 1, *labels.shape, dtype=dtype)
        for labels in (fixed, moving)
    ]
    targets = [one_hot(labels, classes, dtype) for labels in (fixed, moving)]
    return TrainingPair(*images, *targets, class_weights((fixed, moving), classes).to(dtype))


def shifted_pair(dtype: torch.dtype = torch.float32) -> TrainingPair:
    """The boxes, and the boxes moved."""
    return pair_of(boxes(), boxes(shift=(2, 1, -2)), dtype=dtype)
