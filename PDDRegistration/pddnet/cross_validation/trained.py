"""Methods that learn from a fold's training scans: trained once, kept, and resumed where that was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import pddnet
from pddnet.cross_validation.cache import content_hash
from pddnet.cross_validation.methods import Found, Hooks, measured
from pddnet.cross_validation.pairs import Split
from pddnet.cross_validation.training_plan import TrainingPlan
from pddnet.data import Dataset
from pddnet.devices import resolve_device
from pddnet.errors import InputError
from pddnet.learning.grid import TrainingGrid
from pddnet.learning.pdd_net import TrainablePddNet
from pddnet.learning.registry import create, restore
from pddnet.learning.settings import TrainingConfig
from pddnet.learning.trainable import TrainableRegistration
from pddnet.learning.trainer import BEST, SUMMARY, train
from pddnet.trained_weights import TrainedWeights, load_trained, state_of
from pddnet.volume import Volume
from pddnet.warp import SpatialTransform


@dataclass(frozen=True)
class Row:
    """A row of the tables that is learned.

    Args:
        name, title: on the command line and in the tables.
        method: what is trained, as `pddnet.learning.registry` calls it.
        settings: those of its settings that make this row.
        trained: False takes it as it is initialised.
        instance_optimisation: fit the result to each pair afterwards; pdd-net alone can.
    """

    name: str
    title: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True
    instance_optimisation: bool = False


@dataclass(frozen=True)
class Trainings:
    """What all trainings of a benchmark share.

    Args:
        dataset: where the training scans are; `file` is its JSON file.
        plan: settings of the trainings.
        folder: where weights and half-finished trainings are kept, a folder for each.
        device: as for `pddnet.register`.
        seed: of everything random.
        iterations: instead of those of the plan.
    """

    dataset: Dataset
    file: Path
    plan: TrainingPlan
    folder: Path
    device: str
    seed: int = 0
    iterations: int | None = None

    def config(self, row: Row, fold: Split) -> TrainingConfig:
        """How a row is trained on a fold's training scans."""
        changes = dict(row.settings)
        if (
            row.method == "flownet-c"
        ):  # its features learn to tell the labels apart, so their number is part of it
            changes["classes"] = len(self.dataset.label_names) + 1
        return self.plan.config(
            self.file, row.method, row.name, changes, fold.train, self.seed, self.iterations
        )


@dataclass(frozen=True)
class TrainedMethod:
    """A row that is trained anew for each fold, on that fold's training scans only."""

    row: Row
    trainings: Trainings

    @property
    def name(self) -> str:
        """On the command line."""
        return self.row.name

    @property
    def title(self) -> str:
        """In the tables."""
        return self.row.title

    @property
    def training(self) -> bool:
        """Whether `for_fold` takes long."""
        return self.row.trained

    def absent(self) -> str | None:
        """It is always there."""
        return None

    def for_fold(self, fold: Split, hooks: Hooks) -> ReadyNetwork:
        """The network with this fold's weights; trained now unless that was done before."""
        config = self.trainings.config(self.row, fold)
        weights, seconds = self._trained(config, hooks) if self.row.trained else (_untrained(config), None)
        return ReadyNetwork(
            restore(weights),
            TrainingGrid.of(weights.grid),
            weights.sha256,
            self.row.instance_optimisation,
            resolve_device(self.trainings.device),
            seconds,
        )

    def _trained(self, config: TrainingConfig, hooks: Hooks) -> tuple[TrainedWeights, float]:
        """The weights, and how long their training took in all."""
        folder = self.trainings.folder / training_key(config, self.trainings.dataset)
        if not (folder / SUMMARY).exists():  # written last
            train(
                config,
                self.trainings.dataset,
                config.cases,
                folder,
                device=self.trainings.device,
                resume=True,
                on_progress=hooks.on_progress,
                cancelled=hooks.cancelled,
            )
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return load_trained(folder / BEST), float(summary["seconds"])


@dataclass(frozen=True)
class ReadyNetwork:
    """A network with weights: two scans are brought onto its grid, its displacement back to mm."""

    model: TrainableRegistration
    grid: TrainingGrid
    weights: str
    instance_optimisation: bool
    device: torch.device
    training_seconds: float | None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The version of the package, the hash of weights, settings and grid, and where it runs."""
        return {
            "pddnet": pddnet.__version__,
            "weights": self.weights,
            "instance_optimisation": self.instance_optimisation,
            "device": str(self.device),
        }

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> Found:
        """Register two scans of any geometry; the time includes bringing them onto the grid."""
        del folder
        model = self.model.to(self.device)
        return measured(lambda: self._transform(model, fixed, moving), self.device)

    def _transform(self, model: TrainableRegistration, fixed: Volume, moving: Volume) -> SpatialTransform:
        images = [
            self.grid.image(scan, role).to(self.device)
            for scan, role in ((fixed, "fixed"), (moving, "moving"))
        ]
        if not self.instance_optimisation:
            found = model.displacement(images[0], images[1])
        elif isinstance(model, TrainablePddNet):
            found = model.displacement(images[0], images[1], instance_optimisation=True)
        else:
            raise InputError(f"{model.name} gives no probabilities to optimise; only pdd-net does")
        return self.grid.displacement(found, fixed.geometry, moving.geometry)


def training_key(config: TrainingConfig, dataset: Dataset) -> str:
    """The name of a training's folder: a hash of its settings and of the scans that it learns from."""
    scans = {name: dataset.content_hash(name) for name in config.cases}
    labels = {str(code): name for code, name in dataset.label_names.items()}
    settings = config.sha256, config.iterations, pddnet.__version__
    return f"{config.method}-{content_hash([*settings, scans, labels])[:16]}"


def _untrained(config: TrainingConfig) -> TrainedWeights:
    """The network of a configuration as the training would begin with it."""
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        model = create(config.method, config.settings)
    return TrainedWeights(
        config.method, model.config(), state_of(model), config.licence, "not trained", config.grid.as_json()
    )
