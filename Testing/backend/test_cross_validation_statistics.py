"""Means and spreads against numbers worked out by hand, the paired test against its definition and scipy."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import scipy.stats

from pddnet.cross_validation import statistics
from pddnet.cross_validation.pairs import ScanPair
from pddnet.cross_validation.scores import LabelScore, PairScores
from pddnet.cross_validation.statistics import Comparison, Spread, compared, summary_of, wilcoxon_p


def scores(
    *dice: float, hd95: float | None = 1.0, seconds: float = 1.0, peak: float | None = None
) -> PairScores:
    labels = tuple(LabelScore(code, value, hd95) for code, value in enumerate(dice, 1))
    return PairScores(labels, 0.5, 0.25, 2.0, seconds, peak)


PAIRS = [ScanPair(0, "a", str(n)) for n in range(12)]


def exact_p(differences: list[float]) -> float:
    """All signs equally likely: the share of sign patterns with a rank sum as far off (no ties, no zeros)."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    total = ranks.sum() / 2
    off = abs(ranks[np.array(differences) > 0].sum() - total)
    patterns = itertools.product((0, 1), repeat=len(ranks))
    return float(np.mean([abs(np.dot(p, ranks) - total) >= off - 1e-9 for p in patterns]))


class TestSpread:
    def test_mean_and_sample_standard_deviation(self) -> None:
        assert Spread.of([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(np.sqrt(7.0)), 3)

    def test_one_value_has_no_standard_deviation_and_no_value_no_mean(self) -> None:
        assert Spread.of([4.0]) == Spread(4.0, None, 1)
        assert Spread.of([]) is None


class TestSummary:
    def test_over_pairs_and_over_labels_are_told_apart(self) -> None:
        found = summary_of([scores(0.2, 0.6), scores(0.4, 0.8), scores(0.3, 0.7)])
        assert found.dice == Spread(pytest.approx(0.5), pytest.approx(0.1), 3)  # 0.4, 0.6, 0.5
        assert found.dice_over_labels == Spread(
            pytest.approx(0.5), pytest.approx(0.4 / np.sqrt(2)), 2
        )  # 0.3, 0.7
        assert found.dice_by_label == {
            1: Spread(pytest.approx(0.3), pytest.approx(0.1), 3),
            2: Spread(pytest.approx(0.7), pytest.approx(0.1), 3),
        }
        assert found.folding_percent == Spread(2.0, 0.0, 3)

    def test_lost_labels_are_counted_and_not_averaged(self) -> None:
        found = summary_of([scores(0.0, 0.0, hd95=None), scores(0.5, 0.7, hd95=3.0)])
        assert found.lost_labels == 2
        assert found.hd95 == Spread(3.0, None, 1)
        assert found.hd95_by_label == {1: Spread(3.0, None, 1), 2: Spread(3.0, None, 1)}

    def test_memory_that_is_not_known_is_left_out(self) -> None:
        found = summary_of([scores(0.5), scores(0.5, peak=200.0, seconds=3.0)])
        assert found.peak_mb == Spread(200.0, None, 1)
        assert found.seconds == Spread(2.0, pytest.approx(np.sqrt(2.0)), 2)

    def test_nothing_measured_gives_nothing(self) -> None:
        found = summary_of([])
        assert (found.dice, found.hd95, found.seconds, found.dice_by_label) == (None, None, None, {})


class TestComparison:
    def test_p_is_the_share_of_sign_patterns_as_far_off(self) -> None:
        differences = [0.011, 0.024, -0.005, 0.031, 0.017, -0.008, 0.042, 0.029]
        assert wilcoxon_p(differences) == pytest.approx(exact_p(differences))
        assert exact_p(differences) == pytest.approx(
            2 * 5 / 2**8
        )  # rank sums of 0, 1, 2, 3, 3 on the lesser side
        assert wilcoxon_p([-d for d in differences]) == pytest.approx(exact_p(differences))

    def test_it_is_scipys_where_many_values_have_ties(self) -> None:
        values = np.random.default_rng(0).normal(0.02, 0.05, 60).round(2)
        assert wilcoxon_p(values.tolist()) == pytest.approx(scipy.stats.wilcoxon(values).pvalue)
        assert 0 < wilcoxon_p(values.tolist()) < 1

    def test_no_difference_at_all_is_no_evidence(self) -> None:
        assert wilcoxon_p([0.0, 0.0, 0.0]) == 1.0
        assert wilcoxon_p([0.1]) == 1.0

    def test_only_pairs_that_both_have_are_compared(self) -> None:
        better = {pair: scores(0.6 + 0.01 * n) for n, pair in enumerate(PAIRS)}
        reference = {pair: scores(0.5) for pair in PAIRS[:10]}
        found = compared(better, reference, "ref")
        assert found == Comparison("ref", 10, pytest.approx(0.145), pytest.approx(2 / 2**10))
        assert compared(better, {}, "ref") is None

    def test_without_scipy_there_is_a_difference_but_no_p(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "scipy.stats", None)
        found = compared({PAIRS[0]: scores(0.7)}, {PAIRS[0]: scores(0.5)}, "ref")
        assert found == Comparison("ref", 1, pytest.approx(0.2), None)
        assert "pddnet[benchmark]" in statistics.NO_SCIPY
