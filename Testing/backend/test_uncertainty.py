"""The spread of the displacement labels against loops over labels, its limits, and what is made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backend.oracles import lattice as oracle
from pddnet import uncertainty as module
from pddnet.config import LatticeLevel, load_preset
from pddnet.lattice_correlation import lattice_labels
from pddnet.uncertainty import averaged_over_body, cost_spread, error_variance, measured_levels

SHAPE = (3, 4, 2)
LABELS = 2 * lattice_labels(1, torch.zeros((), dtype=torch.float64))


def random_cost() -> torch.Tensor:
    return torch.rand(*SHAPE, len(LABELS), dtype=torch.float64)


def level(step: int, reach: int) -> LatticeLevel:
    return LatticeLevel(step=step, spacing=step, reach=reach, features="coarse", couplings=(0.1,))


class TestSpread:
    @pytest.mark.parametrize("temperature", [0.05, 1.0])
    def test_variance_and_entropy_are_those_of_a_loop_over_labels(self, temperature: float) -> None:
        cost = random_cost()
        found = cost_spread(cost, LABELS, temperature)
        nowhere = np.zeros((*SHAPE, 3))
        expected = oracle.label_spread(cost.numpy(), LABELS.numpy(), nowhere, 0.0, temperature)
        np.testing.assert_allclose(found, np.stack(expected), atol=1e-9)
        assert (cost_spread(cost, LABELS, 1.2 * temperature) - found).abs().max() > 1e-3

    def test_equal_costs_give_the_variance_of_the_labels_and_the_logarithm_of_their_number(self) -> None:
        variance, entropy = cost_spread(torch.ones(*SHAPE, 27), LABELS.float(), 0.05)
        uniform = float(LABELS.var(0, correction=0).sum())
        torch.testing.assert_close(variance, torch.full(SHAPE, uniform))
        torch.testing.assert_close(entropy, torch.full(SHAPE, math.log(27)))

    @pytest.mark.parametrize("label", [0, 13, 26])
    def test_one_cheap_label_leaves_no_spread_wherever_it_lies(self, label: int) -> None:
        cost = torch.ones(*SHAPE, 27)
        cost[..., label] = -100
        spread = cost_spread(cost, LABELS.float(), 0.05)
        assert torch.equal(spread, torch.zeros_like(spread))

    def test_variance_has_the_squared_unit_of_the_labels_and_entropy_has_none(self) -> None:
        cost = random_cost()
        once, twice = (cost_spread(cost, scale * LABELS, 0.05) for scale in (1, 2))
        torch.testing.assert_close(twice[0], 4 * once[0])
        torch.testing.assert_close(twice[1], once[1])

    def test_a_valley_leaves_the_displacement_open_along_it_only(self) -> None:
        cost = LABELS[:, 0].square().expand(*SHAPE, -1)  # all labels of x = 0 fit equally well
        variance, _ = cost_spread(cost, LABELS, 1e-3)
        along_two_axes = float(LABELS[:, 1:].var(0, correction=0).sum())
        torch.testing.assert_close(variance, torch.full(SHAPE, along_two_axes, dtype=torch.float64))

    def test_a_higher_temperature_spreads_more(self) -> None:
        cost = random_cost()
        cold, hot = (cost_spread(cost, LABELS, temperature) for temperature in (0.05, 0.2))
        assert (hot[1] > cold[1]).all()

    def test_nothing_depends_on_the_blocks_and_nothing_is_changed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cost = random_cost()
        before = cost.clone()
        whole = cost_spread(cost, LABELS, 0.05)
        monkeypatch.setattr(module, "_BLOCK_ENTRIES", 5 * 27)
        calls: list[None] = []
        pieces = cost_spread(cost, LABELS, 0.05, lambda: calls.append(None))
        torch.testing.assert_close(pieces, whole)
        assert calls
        assert torch.equal(cost, before)


class TestAverage:
    def test_a_constant_stays_whatever_the_weights(self) -> None:
        spread = torch.full((2, *SHAPE), 1.5, dtype=torch.float64)
        found = averaged_over_body(spread, torch.rand(SHAPE, dtype=torch.float64) + 0.01, 2)
        torch.testing.assert_close(found, spread)

    def test_air_beside_the_body_hardly_counts(self) -> None:
        spread, weights = torch.zeros(1, 9, 1, 1), torch.ones(9, 1, 1)
        spread[0, 5:], weights[5:] = 1.0, 1e-4
        found = averaged_over_body(spread, weights, 8)[0, :, 0, 0]
        assert found[4] < 1e-3
        assert found[5] < 1e-3  # the body's neighbour in the air takes the body's value
        assert averaged_over_body(spread, torch.ones(9, 1, 1), 8)[0, 4, 0, 0] == pytest.approx(1 / 3)

    def test_fine_control_points_are_averaged_about_as_far_in_voxels_as_coarse_ones(self) -> None:
        peak = torch.zeros(1, 17, 1, 1)
        peak[0, 8] = 1.0
        far = [
            float((torch.arange(17.0) - 8).mul(spacing).square() @ found)
            for spacing in (2, 4)
            for found in [averaged_over_body(peak, torch.ones(17, 1, 1), spacing)[0, :, 0, 0]]
        ]
        assert far == pytest.approx([2 * 4 * 2 / 3, 16 * 2 / 3])  # variances of the boxes, voxels squared


class TestExpectedError:
    def test_it_rises_with_what_either_level_leaves_open(self) -> None:
        wide, fine = torch.meshgrid(torch.linspace(0.1, 12, 20), torch.linspace(0.05, 2, 20), indexing="ij")
        variance = error_variance(wide, fine)
        assert (variance.diff(dim=0) > 0).all()
        assert (variance.diff(dim=1) > 0).all()

    def test_where_nothing_is_open_half_a_voxel_is_left(self) -> None:
        nothing = torch.zeros(SHAPE)
        std = error_variance(nothing, nothing).sqrt()
        assert (std > 0.3).all()
        assert (std < 0.6).all()

    def test_where_all_is_open_it_is_some_voxels_and_no_more_than_the_reach(self) -> None:
        wide = 3 * torch.full((1,), 16.0)  # uniform over +-6 in steps of 2, three axes
        fine = torch.full((1,), 2.0)  # uniform over +-1
        std = float(error_variance(wide, fine).sqrt())
        assert 3 < std < 6 * math.sqrt(3)


class TestMeasuredLevels:
    def test_the_last_wide_level_and_the_last_of_all_are_measured(self) -> None:
        levels = [level(8, 64), level(4, 12), level(2, 2), level(2, 2)]
        assert measured_levels(levels) == (False, True, False, True)

    def test_one_level_may_be_both(self) -> None:
        assert measured_levels([level(8, 64), level(4, 12)]) == (False, True)
        assert measured_levels([level(8, 8), level(4, 4)]) == (False, True)
        assert measured_levels([]) == ()

    @pytest.mark.parametrize(
        "preset", ["abdomen-ct", "fast", "brain-mr", "small-structure", "thorax-ct", "generic"]
    )
    def test_every_preset_has_a_level_that_could_see_a_gross_error(self, preset: str) -> None:
        levels = load_preset(preset).lattice_levels
        wide = levels[measured_levels(levels).index(True)]
        assert wide.reach >= 6
        assert wide.reach >= 3 * wide.step
