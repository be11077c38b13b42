"""What a training does, as data, and how it is read from a TOML file."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pddnet.errors import InputError
from pddnet.learning.grid import TrainingGrid
from pddnet.strict_json import from_json

_MAY_CHANGE = (
    "iterations",
    "save_every",
    "tensorboard",
    "licence",
    "note",
)  # between a training and its resumption


@dataclass(frozen=True)
class Augmentation:
    """How scans are varied each time they are seen; 0 leaves something as it is.

    Args:
        affine: standard deviation of the numbers added to the affine matrix that moves the fixed scan and its labels,
            in the cube's coordinates; the published value by default.
        gamma: standard deviation of the logarithm of the exponent that intensities are raised to.
        scale, shift: standard deviations of contrast (relative) and of brightness, in scaled intensities.
        noise: largest standard deviation of the noise in scaled intensities.
        inversion: probability that light becomes dark.
    """

    affine: float = 0.0375
    gamma: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    noise: float = 0.0
    inversion: float = 0.0

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0 or self.inversion > 1:
            raise InputError(
                f"the augmentation is {asdict(self)}; numbers of 0 or more are needed, for inversion up to 1"
            )


@dataclass(frozen=True)
class Validation:
    """How it is judged whether the training gets anywhere.

    Args:
        cases: how many of the training cases are set aside for it; with 0 pairs of training cases are taken, as they
            are, without augmentation.
        pairs: how many pairs are registered each time.
        every: iterations between two times.
        patience: stop after so many times without a better result; 0 never stops.
    """

    cases: int = 0
    pairs: int = 6
    every: int = 100
    patience: int = 0

    def __post_init__(self) -> None:
        if self.cases < 0 or self.cases == 1 or self.pairs < 1 or self.every < 1 or self.patience < 0:
            raise InputError(
                f"the validation has {self.cases} cases, {self.pairs} pairs every {self.every} iterations and patience "
                f"{self.patience}; needed are no cases or 2 and more, at least one pair and iteration, a patience of 0 "
                "or more"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that is decided before a training starts.

    Args:
        dataset: its JSON file; in a TOML file relative to that.
        grid: what the scans are brought onto.
        method: name of what is trained; see `registry.py`.
        settings: of the method; what is left out takes the method's defaults.
        cases: names of the cases to train on; none for those of the fold, or for all.
        fold: the fold of the cross-validation to train, counted from 1; 0 for none.
        folds: how many folds the cross-validation has, where the data set prescribes none.
        start_from: a file that an earlier training wrote, to go on from its weights; "" to begin anew.
        seed: of everything random.
        iterations: steps of the optimiser.
        pairs_per_step: pairs whose gradients are averaged before a step.
        learning_rate: of Adam.
        schedule: the rate stays ("constant"), falls to a hundredth along half a cosine ("cosine"), or is divided by ten
            after two thirds of the iterations and again after five sixths ("step").
        precision: "single", or "mixed": the features in bfloat16, all else in single precision.
        augmentation, validation: see there.
        save_every: iterations between two states from which the training can be resumed.
        tensorboard: write logs for it.
        licence: under which the weights may be used.
        note: for people, kept with the weights.
    """

    dataset: str
    grid: TrainingGrid
    method: str = "pdd-net"
    settings: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[str, ...] = ()
    fold: int = 0
    folds: int = 3
    start_from: str = ""
    seed: int = 0
    iterations: int = 1500
    pairs_per_step: int = 1
    learning_rate: float = 0.01
    schedule: Literal["constant", "cosine", "step"] = "constant"
    precision: Literal["single", "mixed"] = "single"
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: Validation = field(default_factory=Validation)
    save_every: int = 50
    tensorboard: bool = True
    licence: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        counts = (self.iterations, self.pairs_per_step, self.save_every)
        if min(counts) < 1 or self.fold < 0 or not 0 < self.learning_rate < math.inf:
            raise InputError(
                f"the training has {self.iterations} iterations of {self.pairs_per_step} pair(s), save_every "
                f"{self.save_every}, fold {self.fold} and learning_rate {self.learning_rate}; needed are counts of at "
                "least 1, a fold of 0 or more and a rate above 0"
            )
        if self.cases and self.fold:
            raise InputError("the training names both cases and a fold; leave one of the two out")

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        done = iteration / self.iterations
        if self.schedule == "cosine":
            return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        if self.schedule == "step":
            return self.learning_rate * 0.1 ** ((done >= 2 / 3) + (done >= 5 / 6))
        return self.learning_rate

    def as_json(self) -> dict[str, Any]:
        """All settings, as JSON can hold them."""
        return {**asdict(self), "grid": self.grid.as_json(), "settings": dict(self.settings)}

    @property
    def sha256(self) -> str:
        """Over what must stay the same when a training is resumed, hexadecimal."""
        fixed = {name: value for name, value in self.as_json().items() if name not in _MAY_CHANGE}
        if self.schedule != "constant":
            fixed["iterations"] = self.iterations  # the rate depends on their number
        fixed["dataset"] = Path(self.dataset).name  # wherever the folder was moved to
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def read_training_config(path: str | Path) -> TrainingConfig:
    """The configuration in a TOML file; paths in it are relative to the file.

    Raises:
        InputError: the file cannot be read, or holds unknown settings or values that cannot be used.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); a training's TOML file is needed"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML file ({error}); correct it") from error
    config = from_json(TrainingConfig, table, str(path))
    start = str(path.parent / config.start_from) if config.start_from else ""
    return replace(config, dataset=str(path.parent / config.dataset), start_from=start)
