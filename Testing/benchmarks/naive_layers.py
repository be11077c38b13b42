"""The network's layers as the paper's formulas and the published code compute them: what the fast ones must beat.

Plain pooling, padding and sampling, in blocks of control points only where the memory asks for it. Source: Heinrich,
MICCAI 2019, sections 2.2 and 2.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from pddnet.regularisation import RegularisationWeights

OnStage = Callable[[str, float], None]
_POINTS_AT_ONCE = 1024


@torch.no_grad()
def naive_layers(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    weights: RegularisationWeights,
    on_stage: OnStage | None = None,
) -> torch.Tensor:
    """Expected displacement of each control point: dissimilarities, two rounds, softmax, expectation.

    Args:
        fixed_features, moving_features: (1, C, D, H, W).
        points: (Kd, Kh, Kw, 3), normalised (x, y, z).
        labels: (Ld, Lh, Lw, 3), normalised (x, y, z).
        on_stage: told the name and the seconds of each stage that is over.

    Returns:
        (Kd, Kh, Kw, 3), normalised (x, y, z).
    """
    w = weights
    with _timed("dissimilarity", on_stage):
        data = dissimilarities(fixed_features, moving_features, points, labels)
        data = w.data_weight * data + w.data_bias
    with _timed("round 1", on_stage):
        message = mean_field(min_convolution(data))
    with _timed("round 2", on_stage):
        cost = w.repeat_weight * data + w.message_weight * message + w.message_bias
        cost = mean_field(min_convolution(cost))
    with _timed("softmax and expectation", on_stage):
        probabilities = torch.softmax(-w.sharpness * cost.flatten(3), -1)  # (Kd, Kh, Kw, L)
        return (probabilities[..., None] * labels.reshape(-1, 3)).sum(-2)


def dissimilarities(
    fixed: torch.Tensor, moving: torch.Tensor, points: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Sum over channels of (fixed(k) - moving(k + d))^2: (Kd, Kh, Kw, Ld, Lh, Lw)."""
    blocks = []
    for here in points.reshape(-1, 1, 3).split(_POINTS_AT_ONCE):  # (n, 1, 3)
        at_points = _sampled(fixed, here[None])  # (1, C, n, 1)
        displaced = _sampled(moving, (here + labels.reshape(1, -1, 3))[None])  # (1, C, n, L)
        blocks.append((at_points - displaced).square().sum(1)[0])
    return torch.cat(blocks).view(*points.shape[:3], *labels.shape[:3])


def min_convolution(cost: torch.Tensor) -> torch.Tensor:
    """Over the labels: pad 3 by repetition, minimum of 3^3, average of 3^3 twice."""
    blocks = []
    for block in cost.flatten(0, 2).split(_POINTS_AT_ONCE):  # (n, Ld, Lh, Lw)
        lowest = -F.max_pool3d(-F.pad(block[None], (3,) * 6, mode="replicate"), 3, stride=1)
        blocks.append(F.avg_pool3d(F.avg_pool3d(lowest, 3, stride=1), 3, stride=1)[0])
    return torch.cat(blocks).view(cost.shape)


def mean_field(cost: torch.Tensor) -> torch.Tensor:
    """Over the control points: pad 2 by repetition, average of 3^3 twice."""
    labels_first = cost.flatten(3).permute(3, 0, 1, 2)[None]  # (1, L, Kd, Kh, Kw): labels become channels
    padded = F.pad(labels_first, (2,) * 6, mode="replicate")
    averaged = F.avg_pool3d(F.avg_pool3d(padded, 3, stride=1), 3, stride=1)[0]
    return averaged.permute(1, 2, 3, 0).contiguous().view(cost.shape)  # labels last again


def _sampled(features: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Features (1, C, D, H, W) at positions (1, n, m, 3): (1, C, n, m)."""
    grid = positions[:, :, :, None]  # (1, n, m, 1, 3)
    return F.grid_sample(features, grid, padding_mode="border", align_corners=True)[..., 0]


@contextmanager
def _timed(stage: str, on_stage: OnStage | None) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if on_stage is not None:
        on_stage(stage, time.perf_counter() - start)
