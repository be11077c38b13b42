"""The layers after the features in one go: dissimilarities, two rounds, softmax, expectation.

Plane of control points by plane, and no six-dimensional volume is held. Source: Heinrich, MICCAI 2019, section 2.
"""

from __future__ import annotations

import time

import torch

from pddnet.all_cores import Hook
from pddnet.axis_order import AxisOrder
from pddnet.correlation import DissimilaritySearch, Reduction, check_search
from pddnet.label_moments import LabelMoments, MomentReader, probability_writer
from pddnet.message_passing import accumulator
from pddnet.regularisation import RegularisationWeights
from pddnet.rounds import PLANES_ASKED_FOR, STAGES, OnStage, run_rounds


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
    and `entropy` one after the other, in the memory of some 13 planes of control points. Points and labels on the CPU
    spare a GPU the wait.

    Args:
        fixed_features, moving_features: (1, C, D, H, W); the two may differ in D, H, W.
        points: (Kd, Kh, Kw, 3), normalised (x, y, z).
        labels: (Ld, Lh, Lw, 3), normalised (x, y, z).
        weights: the six scalars.
        storage_dtype: type of what is kept of the planes, the features' by default; sums are in float32 at least.
        on_stage: told the name and the seconds of each stage that is over.
        between_chunks: called between pieces of work; what it raises ends the computation.

    Raises:
        InputError: features that are not two volumes of one batch, type and number of channels.
    """
    check_search(fixed_features, moving_features, points, labels, reduction)
    order = AxisOrder.longest_first(
        moving_features.shape[2:]
    )  # interpolation goes through whole lines of the last
    features = order.features(fixed_features), order.features(moving_features)
    found, _ = _search(
        (*features, order.vectors(points), order.vectors(labels)),
        weights,
        reduction,
        storage_dtype,
        on_stage=on_stage,
        between_chunks=between_chunks,
    )
    back = order.back
    return LabelMoments(
        back.vectors(found.displacement), back.vectors(found.variance), back.grid(found.entropy)
    )


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
    found, probabilities = _search(
        (fixed_features, moving_features, points, labels),
        weights,
        reduction,
        None,
        keep_probabilities=True,
        between_chunks=between_chunks,
    )
    return probabilities, found


def _search(
    pair: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    weights: RegularisationWeights,
    reduction: Reduction,
    storage_dtype: torch.dtype | None,
    *,
    keep_probabilities: bool = False,
    on_stage: OnStage | None = None,
    between_chunks: Hook | None,
) -> tuple[LabelMoments, torch.Tensor]:
    """The moments, and the probabilities or an empty tensor."""
    fixed_features, _, points, labels = pair
    depth, height, width = points.shape[:3]
    counts, grid = tuple(labels.shape[:3]), (depth, height, width)
    like = fixed_features.new_empty(0, dtype=storage_dtype or fixed_features.dtype)
    began = time.perf_counter()
    search = DissimilaritySearch(*pair, reduction)
    prepared = time.perf_counter() - began
    kept = like.new_empty(min(depth, PLANES_ASKED_FOR), height, *counts, width)  # points along x last

    def plane_of(plane: int) -> torch.Tensor:
        target = kept[plane % len(kept)]
        search.fill_plane(plane, target.permute(0, 4, 1, 2, 3), between_chunks)  # (Kh, Kw, Ld, Lh, Lw)
        return target.flatten(1, 3)  # (Kh, L, Kw)

    moments = MomentReader(grid, labels, accumulator(like))
    shape = (*grid, counts[0] * counts[1] * counts[2]) if keep_probabilities else (0,)
    probabilities = accumulator(like).new_empty(shape)
    readers = [moments.read, *([probability_writer(probabilities)] if keep_probabilities else [])]

    def tell(stage: str, seconds: float) -> None:
        if on_stage is not None:
            on_stage(stage, seconds + prepared * (stage == STAGES[0]))

    run_rounds(
        plane_of,
        grid,
        counts,
        weights.scales(),
        readers,
        like,
        on_stage=tell if on_stage is not None else None,
        between_chunks=between_chunks,
    )
    if keep_probabilities:
        probabilities = probabilities.view(*grid, *counts)
    return moments.moments(), probabilities
