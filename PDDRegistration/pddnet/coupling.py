"""The quadratic mean field: which displacement label each control point takes, given its costs and its neighbours.

Alternates between the label that minimises dissimilarity + weight * |label - mean|^2 and the neighbours' weighted mean,
with a rising weight; an extension of the coupled convex optimisation of Steinbruecker et al. (2009) and Heinrich et
al. (2014) by weights of the control points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pddnet.all_cores import share_out

_BLOCK_ENTRIES = (
    1 << 19
)  # smaller ones would stay in the cache of a core, but take more calls than that saves
_CHUNKS = 8


def box_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over 3^3 neighbouring control points of (D, H, W, N); nothing is added beyond the border."""
    for axis in range(3):
        values = _sum_of_three(values, axis)
    return values


def weighted_box_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean of (D, H, W, N) over 3^3 neighbouring control points, weighted by (D, H, W)."""
    return box_sum(values * weights[..., None]).div_(box_sum(weights[..., None]))


def smooth_in_place(
    cost: torch.Tensor, weights: torch.Tensor, between_planes: Callable[[], None] | None = None
) -> None:
    """Replace (D, H, W, N) by its `weighted_box_mean`, plane by plane, so that what is worked on stays in cache."""
    depth = len(cost)
    norm = box_sum(weights[..., None]).reciprocal_()

    def summed(z: int) -> torch.Tensor:
        """A plane, weighted and summed within itself; nothing beyond the first and the last."""
        if not 0 <= z < depth:
            return torch.zeros_like(cost[0])
        return _sum_of_three(_sum_of_three(cost[z] * weights[z, ..., None], 0), 1)

    size = -(-depth // _CHUNKS)
    starts = range(0, depth, size)
    # the planes next to each chunk, before its neighbour overwrites them
    beside = {z: summed(z) for start in starts for z in (start - 1, start + size)}

    def smooth(number: int) -> None:
        start, stop = starts[number], min(starts[number] + size, depth)
        before, here = beside[start - 1], summed(start)
        for z in range(start, stop):
            after = summed(z + 1) if z + 1 < stop else beside[start + size]
            torch.mul((before + here).add_(after), norm[z], out=cost[z])
            before, here = here, after

    share_out(len(starts), lambda _: smooth, cost.device, between_planes)


def quadratic_mean_field(
    dissimilarity: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    couplings: Sequence[float],
    between_blocks: Callable[[], None] | None = None,
    means: int = 1,
) -> torch.Tensor:
    """Displacement of every control point.

    Args:
        dissimilarity: (D, H, W, L), already smoothed over control points if that is wanted.
        labels: (L, 3), the displacement labels, (x, y, z) in any unit.
        weights: (D, H, W), how much a control point counts in its neighbours' means.
        couplings: the weight of |label - mean|^2 in each round, in dissimilarity per squared unit of the labels.
        between_blocks: called after each block of control points, where a caller may stop.
        means: how often the last round's labels are averaged over neighbours, at least once.

    Returns:
        (D, H, W, 3), in the labels' unit.
    """
    flat = dissimilarity.flatten(0, 2)  # (K, L)
    mean = None
    for coupling in (0.0, *couplings):
        best = least_cost_displacement(flat, labels, mean, coupling, between_blocks)
        mean = weighted_box_mean(best.view(*weights.shape, 3), weights).view(-1, 3)
    assert mean is not None  # the loop runs at least once
    mean = mean.view(*weights.shape, 3)
    for _ in range(means - 1):
        mean = weighted_box_mean(mean, weights)
    return mean


def least_cost_displacement(
    dissimilarity: torch.Tensor,
    labels: torch.Tensor,
    mean: torch.Tensor | None,
    coupling: float,
    between_blocks: Callable[[], None] | None = None,
) -> torch.Tensor:
    """The label of least dissimilarity + coupling * |label - mean|^2, (K, 3), for dissimilarities (K, L).

    Of several equal ones the mean. (`argmin` would take one, and many times longer: it is not vectorised.)
    """
    points, count = dissimilarity.shape
    rows = max(1, _BLOCK_ENTRIES // count)
    counted = torch.cat((labels, torch.ones_like(labels[:, :1])), 1)  # (L, 4)
    sums = labels.new_empty((points, 4))

    def make_worker(_: int) -> Callable[[int], None]:
        buffer = dissimilarity.new_empty((min(rows, points), count))

        def choose(number: int) -> None:
            block = slice(number * rows, (number + 1) * rows)
            cost = dissimilarity[block]
            chosen = buffer[: len(cost)]
            if mean is not None and coupling > 0:
                cost = coupled_cost(cost, labels, mean[block], coupling, out=chosen)
            torch.le(cost, cost.amin(1, keepdim=True), out=chosen)  # 1 where least, else 0
            torch.mm(chosen, counted, out=sums[block])

        return choose

    share_out(-(-points // rows), make_worker, dissimilarity.device, between_blocks)
    return sums[:, :3] / sums[:, 3:]


def coupled_cost(
    dissimilarity: torch.Tensor,
    labels: torch.Tensor,
    mean: torch.Tensor,
    coupling: float,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """dissimilarity + coupling * |label - mean|^2, up to a constant for each control point: (K, L)."""
    of_points = torch.cat((-2 * coupling * mean, torch.ones_like(mean[:, :1])), 1)  # |mean|^2 is the constant
    of_labels = torch.cat((labels, coupling * labels.square().sum(1, keepdim=True)), 1)
    return torch.addmm(dissimilarity, of_points, of_labels.T, out=out)


def _sum_of_three(values: torch.Tensor, axis: int) -> torch.Tensor:
    n = values.shape[axis]
    total = values.clone()
    if n > 1:
        total.narrow(axis, 1, n - 1).add_(values.narrow(axis, 0, n - 1))
        total.narrow(axis, 0, n - 1).add_(values.narrow(axis, 1, n - 1))
    return total
