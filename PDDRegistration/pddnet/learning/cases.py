"""Which cases of a data set a training uses: for its pairs, for its validation, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pddnet.data import Dataset
from pddnet.errors import InputError
from pddnet.learning.pairs import GridScans, Name, PairSource
from pddnet.learning.settings import Augmentation, TrainingConfig


@dataclass(frozen=True)
class Sources:
    """What is trained on, what judges it, and the pairs (fixed, moving) of the latter."""

    training: PairSource
    validation: PairSource
    pairs: list[Name]


def training_cases(config: TrainingConfig, dataset: Dataset) -> tuple[str, ...]:
    """The names that a configuration trains on: its cases, those of its fold, or all.

    Raises:
        InputError: there is no such case or fold.
    """
    if config.cases:
        return tuple(dataset.case(name).name for name in config.cases)
    if not config.fold:
        return tuple(case.name for case in dataset.cases)
    folds = dataset.cross_validation(config.folds, config.seed)
    if config.fold > len(folds):
        raise InputError(
            f"fold is {config.fold}; data set {dataset.name} has {len(folds)}: choose 1 to {len(folds)}"
        )
    return folds[config.fold - 1].train


def sources_of(
    config: TrainingConfig,
    dataset: Dataset,
    cases: Sequence[str],
    with_labels: bool,
    device: torch.device,
) -> Sources:
    """Where the pairs of a training come from.

    Raises:
        InputError: an unknown case, or too few of them.
    """
    scans = GridScans(dataset, config.grid)
    names = [dataset.case(name).name for name in dict.fromkeys(cases)]
    aside = _set_aside(config, [n for n in names if scans.has_labels(n)] if with_labels else names)
    left = [name for name in names if name not in aside]
    training = PairSource(scans, left, with_labels, config.augmentation, device)
    validation = training
    if aside:
        validation = PairSource(scans, aside, with_labels, Augmentation(affine=0.0), device)
    return Sources(training, validation, validation.some_pairs(config.validation.pairs))


def _set_aside(config: TrainingConfig, names: Sequence[str]) -> list[str]:
    """Names for validation alone, chosen by the seed."""
    count = config.validation.cases
    if count and len(names) < count + 2:
        raise InputError(
            f"the training may use {len(names)} case(s) and sets {count} aside for validation; at least 2 must be left "
            "to train on: set fewer aside, or none"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(config.seed)).tolist()
    return [names[n] for n in sorted(order[:count])]


def note_of(config: TrainingConfig, dataset: Dataset, sources: Sources) -> str:
    """Data and origin of a training, for people."""
    parts = [
        f"data set {dataset.name} ({dataset.licence or 'licence not stated'})",
        f"{len(sources.training.names)} training cases",
        f"seed {config.seed}",
        *([f"started from {Path(config.start_from).name}"] if config.start_from else []),
        *([config.note] if config.note else []),
    ]
    return "; ".join(parts)


def fingerprint_of(config: TrainingConfig, dataset: Dataset, sources: Sources) -> str:
    """Of the configuration, of the scans and of which ones are used."""
    digest = hashlib.sha256(config.sha256.encode())
    for source in (sources.training, sources.validation):
        for name in source.names:
            digest.update(f"{name} {dataset.content_hash(name)}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()
