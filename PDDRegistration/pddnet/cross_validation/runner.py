"""Every method on every pair: what is kept is not done again; what fails is written down and does not end the run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Protocol, TypeVar

from pddnet.cross_validation.cache import Cache, Recipe
from pddnet.cross_validation.methods import Contender, Hooks, Ready
from pddnet.cross_validation.pairs import ScanPair, Split
from pddnet.cross_validation.scores import PairScores, judged
from pddnet.errors import RegistrationCancelled
from pddnet.progress import Progress
from pddnet.volume import LabelMap, Volume

T = TypeVar("T")
TRAINING_SHARE = 20.0  # of the progress: one training counts as so many pairs


class Scans(Protocol):
    """Where scans and labels come from; `pddnet.data.Dataset` is one."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """The labels that count; empty counts all."""

    def image(self, name: str) -> Volume:
        """A scan."""

    def labels(self, name: str) -> LabelMap:
        """Its labels."""

    def content_hash(self, name: str) -> str:
        """A hash of both files."""


@dataclass(frozen=True)
class Study:
    """What is to be measured.

    Args:
        scans: the data set.
        folds: which of its scans are trained with and which are tested.
        pairs: the test pairs, in the order of their folds.
        cache: what was measured before.
        on_progress, cancelled: told about each step; asked between pieces of work.
    """

    scans: Scans
    folds: Sequence[Split]
    pairs: Sequence[ScanPair]
    cache: Cache
    on_progress: Callable[[Progress], None] = field(default=lambda _: None)
    cancelled: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True)
class MethodResult:
    """One method: scores and failures by pair, or why it is absent; seconds of its training by fold, if it learns."""

    name: str
    title: str
    scores: Mapping[ScanPair, PairScores] = field(default_factory=dict)
    failures: Mapping[ScanPair, str] = field(default_factory=dict)
    absent: str | None = None
    training_seconds: Mapping[int, float] = field(default_factory=dict)


def run_study(
    study: Study,
    contenders: Sequence[Contender],
    on_method: Callable[[Sequence[MethodResult]], object] = lambda _: None,
) -> tuple[MethodResult, ...]:
    """Measure all methods, one after the other.

    Args:
        on_method: given all results so far after each method, so that an interrupted run leaves its tables.

    Raises:
        RegistrationCancelled: `study.cancelled` said so; what was measured is kept.
    """
    tally = _Tally(study, sum(_cost(study, contender) for contender in contenders))
    results: list[MethodResult] = []
    for contender in contenders:
        results.append(_measured(study, contender, tally))
        on_method(results)
    tally.tell("done", "done")
    return tuple(results)


def _measured(study: Study, contender: Contender, tally: _Tally) -> MethodResult:
    reason = contender.absent()
    if reason is not None:
        tally.done += _cost(study, contender)
        return MethodResult(contender.name, contender.title, absent=reason)
    scores: dict[ScanPair, PairScores] = {}
    failures: dict[ScanPair, str] = {}
    trained: dict[int, float] = {}
    for fold, pairs in _by_fold(study.pairs):
        ready = _attempted(lambda fold=fold: _prepared(study, contender, fold, tally))  # type: ignore[misc]
        if not isinstance(ready, _Failed) and ready.training_seconds is not None:
            trained[fold] = ready.training_seconds
        for pair in pairs:
            tally.tell(pair.name, f"{contender.title}: {pair.name}")
            found = ready if isinstance(ready, _Failed) else _attempted(_Pair(study, contender, ready, pair))
            if isinstance(found, _Failed):
                failures[pair] = found.message
            else:
                scores[pair] = found
            tally.done += 1
    return MethodResult(contender.name, contender.title, scores, failures, training_seconds=trained)


def _prepared(study: Study, contender: Contender, fold: int, tally: _Tally) -> Ready:
    hooks = Hooks(cancelled=study.cancelled)
    if not contender.training:
        return contender.for_fold(study.folds[fold], hooks)
    place = f"{contender.title}, fold {fold + 1} of {len(study.folds)}"

    def show(progress: Progress) -> None:
        tally.tell("training", f"{place}: {progress.message}", TRAINING_SHARE * progress.fraction)

    try:
        tally.tell("training", f"{place}: training")
        return contender.for_fold(study.folds[fold], replace(hooks, on_progress=show))
    finally:
        tally.done += TRAINING_SHARE


@dataclass(frozen=True)
class _Pair:
    """One method on one pair: called, it looks for kept scores, and measures where there are none."""

    study: Study
    contender: Contender
    ready: Ready
    pair: ScanPair

    def __call__(self) -> PairScores:
        recipe = self._recipe()
        kept = self.study.cache.find(recipe)
        if kept is not None:
            return kept
        scores = self._measured(recipe.counted)
        self.study.cache.keep(recipe, scores, self.pair.name)
        return scores

    def _recipe(self) -> Recipe:
        scans = self.study.scans
        return Recipe(
            method=self.contender.name,
            identity=self.ready.identity,
            fixed=scans.content_hash(self.pair.fixed),
            moving=scans.content_hash(self.pair.moving),
            counted=tuple(sorted(scans.label_names)),
        )

    def _measured(self, counted: tuple[int, ...]) -> PairScores:
        scans, pair = self.study.scans, self.pair
        with tempfile.TemporaryDirectory(prefix="pddnet-benchmark-") as folder:
            found = self.ready.register(scans.image(pair.fixed), scans.image(pair.moving), Path(folder))
            return judged(
                scans.labels(pair.fixed),
                scans.labels(pair.moving),
                found.transform,
                counted,
                found.seconds,
                found.peak_mb,
            )


@dataclass(frozen=True)
class _Failed:
    message: str


def _attempted(work: Callable[[], T]) -> T | _Failed:
    """What `work` returns, or how it failed; only the wish to stop passes."""
    try:
        return work()
    except RegistrationCancelled:
        raise
    except Exception as error:  # whatever a method does wrong, the others go on, and the tables name it
        return _Failed(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _by_fold(pairs: Sequence[ScanPair]) -> Iterator[tuple[int, list[ScanPair]]]:
    ordered = sorted(pairs, key=lambda pair: pair.fold)  # stable
    return ((fold, list(part)) for fold, part in groupby(ordered, key=lambda pair: pair.fold))


def _cost(study: Study, contender: Contender) -> float:
    """Its share of the progress, in pairs."""
    trainings = len({pair.fold for pair in study.pairs}) if contender.training else 0
    return len(study.pairs) + TRAINING_SHARE * trainings


@dataclass
class _Tally:
    """How far the study is, in pairs."""

    study: Study
    total: float
    done: float = 0.0

    def tell(self, stage: str, message: str, beyond: float = 0.0) -> None:
        """Report, and stop here if somebody wants that; `beyond` is what is done of the current piece."""
        if self.study.cancelled():
            raise RegistrationCancelled("cancelled; what was measured is kept")
        fraction = 1.0 if stage == "done" else min(1.0, (self.done + beyond) / self.total)
        self.study.on_progress(Progress(stage, fraction, message))
