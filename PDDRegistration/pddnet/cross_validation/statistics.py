"""Means, spreads and the paired test: from the scores of all pairs to one row for each method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pddnet.cross_validation.pairs import ScanPair
from pddnet.cross_validation.scores import PairScores

Scores = Mapping[ScanPair, PairScores]
NO_SCIPY = "the Wilcoxon test needs scipy, which is not installed: pip install 'pddnet[benchmark]'"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None below two values) of `count` values."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of some values; None where there are none."""
        if not values:
            return None
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std, len(values))


@dataclass(frozen=True)
class Comparison:
    """A method's Dice against the reference's on the pairs that both registered.

    Args:
        pairs: how many.
        median_difference: of the method's mean Dice minus the reference's.
        p: of the two-sided Wilcoxon signed-rank test; None where scipy is missing.
    """

    reference: str
    pairs: int
    median_difference: float
    p: float | None


@dataclass(frozen=True)
class Summary:
    """One method over all its pairs; None where nothing was measured.

    Args:
        dice, hd95: of each pair's mean over its labels; the spread is that over the pairs.
        dice_over_labels: of each label's mean over the pairs; the spread is that over the labels.
        dice_by_label, hd95_by_label: the spread is that over the pairs.
        lost_labels: how often a label was moved out of the fixed scan, which has no HD95.
    """

    dice: Spread | None
    dice_over_labels: Spread | None
    hd95: Spread | None
    dice_by_label: Mapping[int, Spread]
    hd95_by_label: Mapping[int, Spread]
    lost_labels: int
    jacobian_std: Spread | None
    log_jacobian_std: Spread | None
    folding_percent: Spread | None
    seconds: Spread | None
    peak_mb: Spread | None


def summary_of(scores: Sequence[PairScores]) -> Summary:
    """One method's pairs in one row."""

    def over_pairs(value: Callable[[PairScores], float | None]) -> Spread | None:
        return Spread.of([found for found in map(value, scores) if found is not None])

    each = [score for pair in scores for score in pair.labels]
    codes = sorted({score.label for score in each})
    by_label = {n: Spread.of([score.dice for score in each if score.label == n]) for n in codes}
    distances = {n: Spread.of([s.hd95 for s in each if s.label == n and s.hd95 is not None]) for n in codes}
    return Summary(
        dice=over_pairs(lambda pair: pair.dice),
        dice_over_labels=Spread.of([spread.mean for spread in by_label.values() if spread]),
        hd95=over_pairs(lambda pair: pair.hd95),
        dice_by_label={n: spread for n, spread in by_label.items() if spread},
        hd95_by_label={n: spread for n, spread in distances.items() if spread},
        lost_labels=sum(score.hd95 is None for score in each),
        jacobian_std=over_pairs(lambda pair: pair.jacobian_std),
        log_jacobian_std=over_pairs(lambda pair: pair.log_jacobian_std),
        folding_percent=over_pairs(lambda pair: pair.folding_percent),
        seconds=over_pairs(lambda pair: pair.seconds),
        peak_mb=over_pairs(lambda pair: pair.peak_mb),
    )


def compared(scores: Scores, reference: Scores, name: str) -> Comparison | None:
    """A method's mean Dice against that of the reference `name`, pair by pair; None without a common pair."""
    common = [pair for pair in scores if pair in reference]
    if not common:
        return None
    differences = [scores[pair].dice - reference[pair].dice for pair in common]
    return Comparison(name, len(common), statistics.median(differences), wilcoxon_p(differences))


def wilcoxon_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of the Wilcoxon signed-rank test that differences lie around 0; None without scipy.

    Differences of exactly 0 are left out, as Wilcoxon did; where nothing else is left, p is 1.
    """
    if not scipy_is_there():
        return None
    from scipy.stats import wilcoxon

    if not any(differences):
        return 1.0
    p = float(wilcoxon(list(differences)).pvalue)
    return p if math.isfinite(p) else None


def scipy_is_there() -> bool:
    """Whether scipy can be imported; it is an optional dependency."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        return False
    return True
