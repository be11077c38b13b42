"""The spread of the displacement distribution against loops over labels, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backend.oracles import lattice as oracle
from pddnet import uncertainty as module
from pddnet.lattice_correlation import lattice_labels
from pddnet.uncertainty import label_spread

SHAPE = (3, 4, 2)
LABELS = 2 * lattice_labels(1, torch.zeros((), dtype=torch.float64))


def random_problem() -> tuple[torch.Tensor, torch.Tensor]:
    cost = torch.rand(*SHAPE, len(LABELS), dtype=torch.float64)
    return cost, torch.randn(*SHAPE, 3, dtype=torch.float64)


@pytest.mark.parametrize("coupling", [0.0, 0.3])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_variance_and_entropy_are_those_of_a_loop_over_labels(coupling: float, temperature: float) -> None:
    cost, mean = random_problem()
    found = label_spread(cost, LABELS, mean, coupling, temperature)
    expected = oracle.label_spread(cost.numpy(), LABELS.numpy(), mean.numpy(), coupling, temperature)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-9)
    other = label_spread(cost, LABELS, mean, coupling + 0.1, temperature)
    assert (other - found).abs().max() > 1e-3


def test_equal_costs_give_the_variance_of_the_labels_and_the_logarithm_of_their_number() -> None:
    variance, entropy = label_spread(
        torch.ones(*SHAPE, 27), LABELS.float(), torch.zeros(*SHAPE, 3), 0.0, 0.05
    )
    uniform = float(LABELS.var(0, correction=0).sum())
    torch.testing.assert_close(variance, torch.full(SHAPE, uniform))
    torch.testing.assert_close(entropy, torch.full(SHAPE, math.log(27)))


def test_one_cheap_label_leaves_no_spread_wherever_it_lies() -> None:
    for label in (0, 13, 26):
        cost = torch.ones(*SHAPE, 27)
        cost[..., label] = -100
        spread = label_spread(cost, LABELS.float(), torch.zeros(*SHAPE, 3), 0.0, 0.05)
        assert torch.equal(spread, torch.zeros_like(spread))


def test_a_strong_coupling_leaves_no_spread_about_a_label() -> None:
    cost, _ = random_problem()
    mean = LABELS[4].expand(*SHAPE, 3)
    assert label_spread(cost, LABELS, mean, 1e3, 0.05).max() < 1e-6
    assert label_spread(cost, LABELS, mean, 0.0, 0.5).min() > 0.1


def test_a_higher_temperature_spreads_more() -> None:
    cost, mean = random_problem()
    cold, hot = (label_spread(cost, LABELS, mean, 0.1, temperature) for temperature in (0.05, 0.2))
    assert (hot[1] > cold[1]).all()


def test_nothing_depends_on_the_blocks_and_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, mean = random_problem()
    before = cost.clone()
    whole = label_spread(cost, LABELS, mean, 0.1, 0.05)
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", 5 * 27)
    calls: list[None] = []
    pieces = label_spread(cost, LABELS, mean, 0.1, 0.05, lambda: calls.append(None))
    torch.testing.assert_close(pieces, whole)
    assert len(calls) == 5
    assert torch.equal(cost, before)
