"""The quadratic mean field: which displacement label each control point takes, given its costs and its neighbours.

Alternates between the label that minimises dissimilarity + weight * |label - mean|^2 and the neighbours' weighted mean,
with a rising weight; an extension of the coupled convex optimisation of Steinbruecker et al. (2009) and Heinrich et
al. (2014) by weights of the control points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

_BLOCK_ENTRIES = 1 << 22


def box_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over 3^3 neighbouring control points of (D, H, W, N); nothing is added beyond the border."""
    for axis in range(3):
        n = values.shape[axis]
        total = values.clone()
        if n > 1:
            total.narrow(axis, 1, n - 1).add_(values.narrow(axis, 0, n - 1))
            total.narrow(axis, 0, n - 1).add_(values.narrow(axis, 1, n - 1))
        values = total
    return values


def weighted_box_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean of (D, H, W, N) over 3^3 neighbouring control points, weighted by (D, H, W)."""
    return box_sum(values * weights[..., None]).div_(box_sum(weights[..., None]))


def quadratic_mean_field(
    dissimilarity: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    couplings: Sequence[float],
    between_blocks: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Displacement of every control point.

    Args:
        dissimilarity: (D, H, W, L), already smoothed over control points if that is wanted.
        labels: (L, 3), the displacement labels, (x, y, z) in any unit.
        weights: (D, H, W), how much a control point counts in its neighbours' means.
        couplings: the weight of |label - mean|^2 in each round, in dissimilarity per squared unit of the labels.
        between_blocks: called after each block of control points, where a caller may stop.

    Returns:
        (D, H, W, 3), in the labels' unit.
    """
    flat = dissimilarity.flatten(0, 2)  # (K, L)
    mean = None
    for coupling in (0.0, *couplings):
        best = least_cost_label(flat, labels, mean, coupling, between_blocks)
        mean = weighted_box_mean(labels[best].view(*weights.shape, 3), weights).view(-1, 3)
    assert mean is not None  # the loop runs at least once
    return mean.view(*weights.shape, 3)


def coupled_cost(
    dissimilarity: torch.Tensor, labels: torch.Tensor, mean: torch.Tensor, coupling: float
) -> torch.Tensor:
    """dissimilarity + coupling * |label - mean|^2, up to a constant for each control point: (K, L)."""
    penalty = coupling * labels.square().sum(1)  # (L,); |mean|^2 is the constant
    return torch.addmm(dissimilarity + penalty, mean, labels.T, alpha=-2 * coupling)


def least_cost_label(
    dissimilarity: torch.Tensor,
    labels: torch.Tensor,
    mean: torch.Tensor | None,
    coupling: float,
    between_blocks: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Index (K,) of the label of least coupled cost, for costs (K, L)."""
    rows = max(1, _BLOCK_ENTRIES // dissimilarity.shape[1])
    best = torch.empty(dissimilarity.shape[0], dtype=torch.long, device=dissimilarity.device)
    for start in range(0, dissimilarity.shape[0], rows):
        block = slice(start, start + rows)
        cost = dissimilarity[block]
        if mean is not None and coupling > 0:
            cost = coupled_cost(cost, labels, mean[block], coupling)
        best[block] = cost.argmin(1)
        if between_blocks:
            between_blocks()
    return best
