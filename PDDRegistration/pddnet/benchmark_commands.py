"""`pddnet benchmark` and `pddnet dataset`: methods compared on a data set, and a data set of made-up patients."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from pddnet.commands import Answer
from pddnet.cross_validation.cache import Cache
from pddnet.cross_validation.method_table import Options, contenders_of
from pddnet.cross_validation.methods import Contender
from pddnet.cross_validation.pairs import ScanPair, pairs_of
from pddnet.cross_validation.report import Setting, table_of, write_report
from pddnet.cross_validation.runner import Study, run_study
from pddnet.cross_validation.trained import Trainings
from pddnet.cross_validation.training_plan import TrainingPlan
from pddnet.data import Dataset, Fold
from pddnet.devices import resolve_device
from pddnet.errors import InputError
from pddnet.interop.files import check_output_folder
from pddnet.synthetic_dataset import DATASET, write_synthetic_dataset
from pddnet.terminal import Interruption, ProgressDisplay

_FOLDS = 3  # the paper's
_OPTIONS = ("methods", "folds", "pairs", "seed", "iterations")


def benchmark(arguments: argparse.Namespace, interruption: Interruption) -> Answer:
    """Measure methods on the test pairs of a cross-validation and write tables."""
    check_output_folder(arguments.out)
    device = resolve_device(arguments.device)
    dataset = Dataset.read(arguments.dataset)
    trainings = _trainings(arguments, dataset, str(device))
    contenders = contenders_of(arguments.methods.split(","), Options(str(device), trainings))
    reference = _reference(arguments.reference, contenders)
    folds = _folds(dataset, arguments.folds, arguments.seed)
    pairs = pairs_of(folds, arguments.pairs, arguments.seed)
    _check_labelled(dataset, pairs)
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    options |= {"device": str(device), "training": asdict(trainings.plan)}
    setting = Setting(dataset.name, dataset.label_names, folds, pairs, options, reference)
    with closing(ProgressDisplay()) as display:
        study = Study(dataset, folds, pairs, Cache(arguments.out / "pairs"), display, interruption.requested)
        results = run_study(study, contenders, lambda so_far: write_report(arguments.out, setting, so_far))
    report = write_report(arguments.out, setting, results)
    text = [*table_of(setting, results), "", f"tables and results are in {arguments.out}"]
    return Answer(report, "\n".join(text))


def dataset(arguments: argparse.Namespace, interruption: Interruption) -> Answer:
    """Make up patients and write them as a data set."""
    check_output_folder(arguments.out)
    with closing(ProgressDisplay()) as display:
        made = write_synthetic_dataset(
            arguments.out,
            arguments.cases,
            size=arguments.size,
            spacing_mm=arguments.spacing,
            seed=arguments.seed,
            on_progress=display,
            cancelled=interruption.requested,
        )
    text = f"{len(made['cases'])} synthetic patients; the data set is {arguments.out / DATASET}"
    return Answer(made, text)


def _trainings(arguments: argparse.Namespace, dataset: Dataset, device: str) -> Trainings:
    file: Path | None = arguments.training
    return Trainings(
        dataset=dataset,
        file=arguments.dataset,
        plan=TrainingPlan.default(dataset) if file is None else TrainingPlan.read(file),
        folder=arguments.out / "training",
        device=device,
        seed=arguments.seed,
        iterations=arguments.iterations,
    )


def _folds(dataset: Dataset, asked: int | None, seed: int) -> tuple[Fold, ...]:
    if dataset.folds and asked not in (None, len(dataset.folds)):
        raise InputError(
            f"folds is {asked}; data set {dataset.name} prescribes {len(dataset.folds)}: leave --folds out, or take "
            'the "folds" out of its file'
        )
    return dataset.cross_validation(asked or _FOLDS, seed)


def _reference(name: str | None, contenders: Sequence[Contender]) -> str | None:
    """The name of the method that the others are compared with, if one is asked for."""
    if name is None:
        return None
    known = [contender.name for contender in contenders]
    if name.strip().lower() not in known:
        raise InputError(f"reference '{name}' is not among the methods; choose one of {', '.join(known)}")
    return name.strip().lower()


def _check_labelled(dataset: Dataset, pairs: Sequence[ScanPair]) -> None:
    tested = sorted({name for pair in pairs for name in (pair.fixed, pair.moving)})
    bare = [name for name in tested if dataset.case(name).labels is None]
    if bare:
        raise InputError(
            f"the test case {', '.join(bare)} has no label map, so nothing can be judged on it; add one, or take the "
            "case out of the folds' tests"
        )
