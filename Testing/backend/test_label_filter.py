"""The min-convolution of a block in memory that is used again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.oracles import layers
from pddnet.label_filter import LabelFilter, label_filters, min_convolution_gradient

SHAPES = [(5, 3, 4), (1, 1, 1), (2, 1, 3), (1, 6, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_is_filtered_as_its_points_one_by_one_and_again(shape: tuple[int, int, int]) -> None:
    envelope = LabelFilter(shape, 3, torch.empty(0, dtype=torch.float64))
    for _ in range(2):
        cost = torch.randn(*shape, 3, dtype=torch.float64)  # (Ld, Lh, Lw, n)
        envelope.source.copy_(cost)
        envelope.run()
        by_points = cost.permute(3, 0, 1, 2)[None, None].numpy()  # (1, 1, n, Ld, Lh, Lw)
        expected = np.moveaxis(layers.min_convolution(by_points)[0, 0], 0, 3).reshape(-1, 3)
        np.testing.assert_allclose(envelope.result, expected, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_that_of_small_changes(shape: tuple[int, int, int]) -> None:
    like = torch.empty(0, dtype=torch.float64)
    envelope, cost = LabelFilter(shape, 2, like), torch.randn(*shape, 2, dtype=torch.float64)
    arriving, change = torch.randn_like(cost), 1e-6 * torch.randn_like(cost)

    def filtered(values: torch.Tensor) -> torch.Tensor:
        envelope.source.copy_(values)
        envelope.run()
        return envelope.result.clone().view_as(cost)

    gradient = min_convolution_gradient(cost, arriving, label_filters(shape, like))
    difference = ((filtered(cost + change) - filtered(cost - change)) * arriving).sum() / 2
    torch.testing.assert_close((gradient * change).sum(), difference, rtol=1e-6, atol=1e-15)


def test_labels_that_tie_share_the_gradient_equally() -> None:
    cost = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    gradient = min_convolution_gradient(cost, torch.ones_like(cost), label_filters((2, 1, 1), cost))
    torch.testing.assert_close(gradient, torch.ones_like(cost))
    arriving = torch.tensor([1.0, 0.0], dtype=torch.float64).view(2, 1, 1, 1)
    filters = label_filters((2, 1, 1), cost)
    # the minima are c0, min(c0, c1), min(c0, c1), c1
    taps = filters[0][0]
    first = taps[0] + (taps[1] + taps[2]) / 2
    found = min_convolution_gradient(cost, arriving, filters).flatten()
    torch.testing.assert_close(found, torch.stack((first, 1 - first)))
