"""The layers after the features in one go: dissimilarities, two rounds, softmax, expectation.

The probabilities themselves are never written. Source: Heinrich, MICCAI 2019, sections 2.2 and 2.3.
"""

from __future__ import annotations

import torch

from pddnet.all_cores import Hook
from pddnet.correlation import Reduction, fill_dissimilarities
from pddnet.regularisation import RegularisationWeights
from pddnet.rounds import LabelMoments, OnStage, read_moments, run_rounds, softmax_in_place, timed


@torch.no_grad()
def displacement_from_features(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    weights: RegularisationWeights,
    *,
    reduction: Reduction = "sum",
    storage_dtype: torch.dtype | None = None,
    on_stage: OnStage | None = None,
    between_chunks: Hook | None = None,
) -> LabelMoments:
    """What each control point's displacement is expected to be, its variance and the entropy of its labels.

    The same as `dissimilarity_volume`, `regularise` and `expected_displacement`, `displacement_covariance_diagonal`
    and `entropy` one after the other, in two volumes of storage. Points and labels on the CPU spare a GPU the wait.

    Args:
        fixed_features, moving_features: (1, C, D, H, W); the two may differ in D, H, W.
        points: (Kd, Kh, Kw, 3), normalised (x, y, z).
        labels: (Ld, Lh, Lw, 3), normalised (x, y, z).
        weights: the six scalars.
        storage_dtype: type of the two volumes, the features' by default; sums are in float32 at least.
        on_stage: told the name and the seconds of each stage that is over.
        between_chunks: called between pieces of work; what it raises ends the computation.

    Raises:
        InputError: features that are not two volumes of one batch, type and number of channels.
    """
    volume = _costs(
        fixed_features,
        moving_features,
        points,
        labels,
        weights,
        reduction=reduction,
        storage_dtype=storage_dtype,
        on_stage=on_stage,
        between_chunks=between_chunks,
    )
    with timed("softmax and expectation", on_stage, volume.device):
        return read_moments(volume, labels, between_chunks)


@torch.no_grad()
def probabilities_from_features(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    weights: RegularisationWeights,
    *,
    reduction: Reduction = "sum",
    between_chunks: Hook | None = None,
) -> tuple[torch.Tensor, LabelMoments]:
    """As `displacement_from_features`, and the probabilities (Kd, Kh, Kw, Ld, Lh, Lw) for those who fit to them."""
    volume = _costs(
        fixed_features,
        moving_features,
        points,
        labels,
        weights,
        reduction=reduction,
        between_chunks=between_chunks,
    )
    moments = read_moments(volume, labels, between_chunks)
    return softmax_in_place(volume, between_chunks).view(*points.shape[:3], *labels.shape[:3]), moments


def _costs(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    weights: RegularisationWeights,
    *,
    reduction: Reduction,
    storage_dtype: torch.dtype | None = None,
    on_stage: OnStage | None = None,
    between_chunks: Hook | None,
) -> torch.Tensor:
    """What `run_rounds` leaves, (Kd, Kh, L, Kw): the points along x last, so that nothing is permuted."""
    depth, height, width = points.shape[:3]
    counts = tuple(labels.shape[:3])
    scales = weights.scales()
    like = fixed_features.new_empty(0, dtype=storage_dtype or fixed_features.dtype)
    with timed("dissimilarity", on_stage, like.device):
        data = like.new_empty(depth, height, *counts, width)
        fill_dissimilarities(
            data.permute(0, 1, 5, 2, 3, 4),  # (Kd, Kh, Kw, Ld, Lh, Lw)
            fixed_features,
            moving_features,
            points,
            labels,
            reduction=reduction,
            between_chunks=between_chunks,
        )
    data = data.view(depth * height, -1, width)  # (Kd*Kh, L, Kw)
    volume = like.new_empty(depth, height, *data.shape[1:])
    run_rounds(data, volume, counts, scales, on_stage=on_stage, between_chunks=between_chunks)
    return volume
