"""The quadratic mean field against loops over control points, and what weights and couplings mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from backend.oracles import lattice as oracle
from pddnet import coupling as module
from pddnet.coupling import (
    box_sum,
    coupled_cost,
    least_cost_displacement,
    quadratic_mean_field,
    smooth_in_place,
    weighted_box_mean,
)
from pddnet.lattice_correlation import lattice_labels

SHAPE = (4, 3, 5)
COUPLINGS = [0.01, 0.1, 1.0]
small = st.tuples(*[st.integers(1, 4)] * 3)


def problem(
    shape: tuple[int, ...] = SHAPE, radius: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Costs, labels and weights, float64."""
    labels = 1.5 * lattice_labels(radius, torch.zeros((), dtype=torch.float64))
    cost = torch.rand(*shape, len(labels), dtype=torch.float64)
    return cost, labels, 0.02 + torch.rand(shape, dtype=torch.float64)


@examples(max_examples=20)
@given(small)
def test_a_box_sum_adds_the_neighbours_there_are(shape: tuple[int, int, int]) -> None:
    values, ones = torch.randn(*shape, 2, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    mean = oracle.box_mean(values.numpy(), ones.numpy())
    np.testing.assert_allclose(box_sum(values) / box_sum(ones[..., None]), mean, atol=1e-12)
    assert box_sum(ones[..., None]).max() == np.prod([min(3, n) for n in shape])


@examples(max_examples=20)
@given(small)
def test_the_weighted_mean_is_that_of_a_loop_over_neighbours(shape: tuple[int, int, int]) -> None:
    values, weights = torch.randn(*shape, 3, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)
    expected = oracle.box_mean(values.numpy(), weights.numpy())
    np.testing.assert_allclose(weighted_box_mean(values, weights), expected, atol=1e-12)


@examples(max_examples=15)
@given(small, st.integers(0, 3))
def test_the_mean_field_is_that_of_a_loop_over_points_and_labels(
    shape: tuple[int, int, int], rounds: int
) -> None:
    cost, labels, weights = problem(shape)
    couplings = COUPLINGS[:rounds]
    expected = oracle.quadratic_mean_field(cost.numpy(), labels.numpy(), weights.numpy(), couplings)
    found = quadratic_mean_field(cost, labels, weights, couplings)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_couplings_and_their_order_matter() -> None:
    cost, labels, weights = problem()
    found = quadratic_mean_field(cost, labels, weights, COUPLINGS)
    assert not torch.equal(found, quadratic_mean_field(cost, labels, weights, COUPLINGS[:1]))
    assert not torch.equal(found, quadratic_mean_field(cost, labels, weights, [10.0, 0.01, 1.0]))


@pytest.mark.parametrize("means", [1, 2, 3])
def test_the_last_labels_are_averaged_over_neighbours_as_often_as_asked(means: int) -> None:
    cost, labels, weights = problem()
    expected = oracle.quadratic_mean_field(cost.numpy(), labels.numpy(), weights.numpy(), COUPLINGS)
    for _ in range(means - 1):
        expected = oracle.box_mean(expected, weights.numpy())
    found = quadratic_mean_field(cost, labels, weights, COUPLINGS, means=means)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (means == 1) == torch.equal(found, quadratic_mean_field(cost, labels, weights, COUPLINGS))


def test_nothing_depends_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, labels, weights = problem()
    whole = quadratic_mean_field(cost, labels, weights, COUPLINGS)
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", 7 * len(labels))
    calls: list[None] = []
    pieces = quadratic_mean_field(cost, labels, weights, COUPLINGS, lambda: calls.append(None))
    assert torch.equal(pieces, whole)
    assert len(calls) >= 4  # at least once a round


def test_the_arguments_are_not_changed() -> None:
    arguments = problem()
    before = [argument.clone() for argument in arguments]
    quadratic_mean_field(*arguments, COUPLINGS)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


def test_a_point_of_almost_no_weight_does_not_move_its_neighbours() -> None:
    _, labels, weights = problem(radius=2)
    wanted, outlier = torch.tensor([1.5, -3.0, 0.0]), torch.tensor([-3.0, 3.0, 3.0])
    goal = wanted.double().expand(*SHAPE, 3).clone()
    goal[1, 1, 2] = outlier.double()
    cost = (labels - goal[..., None, :]).square().sum(-1)  # each point is certain of its goal
    light, equal = weights.clone(), torch.ones_like(weights)
    light[1, 1, 2] = 1e-6
    kept = quadratic_mean_field(cost, labels, light, [0.001])
    pulled = quadratic_mean_field(cost, labels, equal, [0.001])
    torch.testing.assert_close(kept, wanted.double().expand_as(kept), atol=1e-4, rtol=0)
    assert (pulled - kept).norm(dim=-1)[1, 1, 1] > 0.2


def test_a_strong_coupling_makes_one_displacement_of_all() -> None:
    cost, labels, _ = problem((5, 4, 6), radius=2)
    cost[..., 40] -= 1  # what most points want
    for outlier in ((2, 1, 1), (2, 2, 4)):
        cost[(*outlier, 90)] -= 3
    equal = torch.ones(5, 4, 6, dtype=torch.float64)
    free, bound = (quadratic_mean_field(cost, labels, equal, [c] * 10) for c in (0.0, 1e6))
    torch.testing.assert_close(bound, labels[40].expand_as(bound))
    assert (free - labels[40]).norm(dim=-1).max() > 0.1


def test_a_certain_and_equal_displacement_comes_back_exactly() -> None:
    cost, labels, weights = problem()
    cost[..., 5] = -1
    found = quadratic_mean_field(cost, labels, weights, COUPLINGS)
    torch.testing.assert_close(found, labels[5].expand_as(found))


def test_the_coupled_cost_is_the_penalty_up_to_a_constant_for_each_point() -> None:
    cost, labels, _ = problem()
    flat, mean = cost.flatten(0, 2), torch.randn(cost[..., 0].numel(), 3, dtype=torch.float64)
    naive = flat + 0.7 * (labels[None] - mean[:, None]).square().sum(-1)
    difference = naive - coupled_cost(flat, labels, mean, 0.7)
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))
    torch.testing.assert_close(difference[:, 0], 0.7 * mean.square().sum(1))


def test_without_a_mean_the_label_of_least_cost_is_taken() -> None:
    cost, labels, _ = problem()
    flat = cost.flatten(0, 2)
    assert torch.equal(least_cost_displacement(flat, labels, None, 5.0), labels[flat.argmin(1)])


def test_of_equal_labels_the_mean_is_taken() -> None:
    cost, labels, _ = problem()
    flat = cost.flatten(0, 2).clamp(min=0)
    flat[:, [3, 9]] = -1
    found = least_cost_displacement(flat, labels, None, 0.0)
    torch.testing.assert_close(found, labels[[3, 9]].mean(0).expand_as(found))


@pytest.mark.parametrize("shape", [(5, 4, 6), (1, 3, 2), (2, 1, 1), (3, 2, 1)])
def test_smoothing_in_place_is_the_weighted_mean(shape: tuple[int, int, int]) -> None:
    cost, _, weights = problem(shape)
    expected = weighted_box_mean(cost, weights)
    smooth_in_place(cost, weights)
    torch.testing.assert_close(cost, expected)
