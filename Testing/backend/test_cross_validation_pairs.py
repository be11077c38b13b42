"""Pairs that are judged hold no training scan, are as many as in the paper, and are drawn evenly and repeatably."""

from __future__ import annotations

from collections import Counter

import pytest

from backend.small_study import FOLDS, Fold
from pddnet.cross_validation.pairs import ScanPair, pairs_of
from pddnet.errors import InputError


def test_ten_scans_in_three_folds_have_the_papers_24_pairs() -> None:
    names = [str(n) for n in range(10)]
    tests = [tuple(names[start::3]) for start in range(3)]
    folds = [Fold(tuple(n for n in names if n not in test), test) for test in tests]
    pairs = pairs_of(folds)
    assert len(pairs) == len(set(pairs)) == 24
    for pair in pairs:
        assert pair.fixed != pair.moving
        assert {pair.fixed, pair.moving} <= set(folds[pair.fold].test)
        assert not {pair.fixed, pair.moving} & set(folds[pair.fold].train)


def test_a_part_is_drawn_in_turn_from_the_folds_and_a_larger_part_holds_it() -> None:
    few, more = pairs_of(FOLDS, 3, seed=5), pairs_of(FOLDS, 6, seed=5)
    assert Counter(pair.fold for pair in few) == {0: 2, 1: 1}
    assert Counter(pair.fold for pair in more) == {0: 4, 1: 2}
    assert set(few) < set(more) < set(pairs_of(FOLDS))
    assert few == pairs_of(FOLDS, 3, seed=5)
    assert len({frozenset(pairs_of(FOLDS, 3, seed=seed)) for seed in range(20)}) > 1


def test_a_pair_says_what_comes_onto_what() -> None:
    assert ScanPair(0, fixed="a", moving="b").name == "b onto a"


@pytest.mark.parametrize("count", [0, -1, 9])
def test_more_pairs_than_there_are_or_none_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=rf"pairs is {count}; the folds have 8 pairs .*choose 1 to 8"):
        pairs_of(FOLDS, count)


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (Fold(("a", "b"), ("b", "c")), "fold 2 has b among its training and its test scans"),
        (Fold(("a",), ("b",)), "fold 2 has the test scans b; at least two"),
        (Fold(("a",), ()), r"fold 2 has the test scans \(none\); at least two"),
        (Fold(("a",), ("b", "b")), "fold 2 has the test scans b, b; at least two different"),
    ],
)
def test_a_fold_that_would_judge_on_known_or_too_few_scans_is_refused(fold: Fold, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pairs_of([FOLDS[0], fold])
