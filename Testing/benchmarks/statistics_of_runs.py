"""Ratios of medians and exponents of growth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def ratio_of_medians(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as long the median of `slow` is as that of `fast`."""
    return statistics.median(slow) / statistics.median(fast)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The p of values ~ sizes^p: the slope of the least-squares line through the logarithms.

    Raises:
        ValueError: fewer than two different sizes, lists of different length, or a number that is not positive.
    """
    if len(sizes) != len(values) or len(set(sizes)) < 2 or min(*sizes, *values) <= 0:
        raise ValueError(f"sizes are {sizes} and values {values}; positive ones, two or more, are needed")
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    covariance = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / math.fsum((a - mean_x) ** 2 for a in x)
