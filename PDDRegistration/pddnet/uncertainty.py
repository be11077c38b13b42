"""Where the result can be trusted: the spread of the displacement distribution at each point.

Each level of a registration leaves a distribution over its displacement labels at every control point. The levels'
displacements add up, so under the assumption that their errors are independent their variances and entropies do too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pddnet.coupling import coupled_cost
from pddnet.volume import Volume

_BLOCK_ENTRIES = 1 << 22


@dataclass(frozen=True)
class Uncertainty:
    """What a registration says about its own error.

    Args:
        std_mm: standard deviation of the displacement, mm: root of the sum of the variances along the three axes.
        entropy: entropy of the displacement labels, nats, summed over the levels.
    """

    std_mm: Volume
    entropy: Volume


def label_spread(
    dissimilarity: torch.Tensor,
    labels: torch.Tensor,
    mean: torch.Tensor,
    coupling: float,
    temperature: float,
    between_blocks: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Variance and entropy of softmax(-(dissimilarity + coupling |label - mean|^2) / temperature).

    Args:
        dissimilarity: (D, H, W, L).
        labels: (L, 3).
        mean: (D, H, W, 3), the neighbours' mean, in the labels' unit.

    Returns:
        (2, D, H, W): the variance summed over the axes (labels' unit squared), and the entropy (nats).
    """
    shape = dissimilarity.shape[:3]
    flat, centre = dissimilarity.flatten(0, 2), mean.reshape(-1, 3)
    rows = max(1, _BLOCK_ENTRIES // flat.shape[1])
    out = flat.new_empty((2, flat.shape[0]))
    squares = labels.square().sum(1)
    for start in range(0, flat.shape[0], rows):
        block = slice(start, start + rows)
        log_p = coupled_cost(flat[block], labels, centre[block], coupling).div_(-temperature).log_softmax(1)
        p = log_p.exp()
        out[0, block] = (p @ squares - (p @ labels).square().sum(1)).clamp_(min=0)
        out[1, block] = -(p * log_p).sum(1)
        if between_blocks:
            between_blocks()
    return out.view(2, *shape)
