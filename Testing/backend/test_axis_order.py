"""Axes in another order, and back."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from pddnet.axis_order import AxisOrder
from pddnet.interpolation import sample_at

ORDERS = list(permutations(range(3)))


def test_the_longest_axis_comes_first_and_equals_keep_their_order() -> None:
    assert AxisOrder.longest_first((4, 9, 6)).axes == (1, 2, 0)
    assert AxisOrder.longest_first((5, 5, 5)).axes == (0, 1, 2)


@pytest.mark.parametrize("axes", ORDERS)
def test_a_position_finds_the_same_feature_in_any_order(axes: tuple[int, int, int]) -> None:
    order = AxisOrder(axes)
    features, positions = torch.randn(1, 2, 3, 4, 5), 2 * torch.rand(2, 4, 3, 3) - 1
    here = sample_at(features, positions)
    there = sample_at(order.features(features), order.vectors(positions))
    torch.testing.assert_close(torch.stack([order.grid(channel) for channel in here]), there)
    if axes != (0, 1, 2):
        assert order.features(features).shape != features.shape


@pytest.mark.parametrize("axes", ORDERS)
def test_the_way_back_undoes_it(axes: tuple[int, int, int]) -> None:
    order, vectors, grid = AxisOrder(axes), torch.randn(2, 3, 4, 3), torch.randn(2, 3, 4)
    assert torch.equal(order.back.vectors(order.vectors(vectors)), vectors)
    assert torch.equal(order.back.grid(order.grid(grid)), grid)
