"""Which scans are registered: pairs of test scans, so that no labelled training scan is in a pair that is judged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, zip_longest
from typing import Protocol

from pddnet.errors import InputError


class Split(Protocol):
    """One fold: names of scans to train with and of scans to test with."""

    @property
    def train(self) -> tuple[str, ...]:
        """Names of scans whose labels may be used."""

    @property
    def test(self) -> tuple[str, ...]:
        """Names of scans that are registered and judged."""


@dataclass(frozen=True)
class ScanPair:
    """Two test scans of one fold, of which the second is brought onto the first; folds count from 0."""

    fold: int
    fixed: str
    moving: str

    @property
    def name(self) -> str:
        """moving onto fixed."""
        return f"{self.moving} onto {self.fixed}"


def pairs_of(folds: Sequence[Split], count: int | None = None, seed: int = 0) -> tuple[ScanPair, ...]:
    """The ordered pairs of different test scans within each fold, or a random part of them.

    Ten scans in three folds of 4, 3 and 3 have 4 * 3 + 3 * 2 + 3 * 2 = 24, as in the paper. A part is drawn in turn
    from the folds, and a larger part with the same seed holds every smaller one.

    Args:
        count: how many pairs; None for all.
        seed: of the draw.

    Raises:
        InputError: a scan is in both parts of a fold, a fold has fewer than two test scans, or `count` is out of range.
    """
    for number, fold in enumerate(folds):
        _check_fold(number, fold)
    everything = [[ScanPair(n, *pair) for pair in permutations(fold.test, 2)] for n, fold in enumerate(folds)]
    total = sum(map(len, everything))
    if count is None:
        return tuple(pair for pairs in everything for pair in pairs)
    if not 1 <= count <= total:
        raise InputError(
            f"pairs is {count}; the folds have {total} pairs of different test scans: choose 1 to {total}, "
            "or leave it out for all"
        )
    for number, pairs in enumerate(everything):
        random.Random(f"{seed} {number}").shuffle(pairs)
    in_turn = [pair for row in zip_longest(*everything) for pair in row if pair is not None]
    return tuple(sorted(in_turn[:count], key=lambda pair: pair.fold))


def _check_fold(number: int, fold: Split) -> None:
    both = sorted(set(fold.train) & set(fold.test))
    if both:
        raise InputError(
            f"fold {number + 1} has {', '.join(both)} among its training and its test scans; take them out of one, "
            "or the results say nothing about scans that are new"
        )
    if len(set(fold.test)) < 2 or len(set(fold.test)) < len(fold.test):
        raise InputError(
            f"fold {number + 1} has the test scans {', '.join(fold.test) or '(none)'}; at least two different ones are "
            "needed: choose fewer folds"
        )
