"""Methods that need no training: nothing at all, and this package's presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import pddnet
from pddnet.config import Preset
from pddnet.cross_validation.methods import Found, Hooks, measured
from pddnet.cross_validation.pairs import Split
from pddnet.devices import resolve_device
from pddnet.job_files import sha256
from pddnet.published import network_of
from pddnet.published_weights import CheckpointError
from pddnet.registration import register
from pddnet.strict_json import to_json
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, SpatialTransform


@dataclass(frozen=True)
class Unregistered:
    """No registration: the centres of both fields of view on each other, or both scans where they are."""

    name: str
    title: str
    centred: bool
    training: bool = False
    training_seconds: float | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Nothing but which of the two."""
        return {"centred": self.centred}

    def absent(self) -> str | None:
        """It is always there."""
        return None

    def for_fold(self, fold: Split, hooks: Hooks) -> Unregistered:
        """The same for every fold."""
        del fold, hooks
        return self

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> Found:
        """A shift, or the identity; it takes no time."""
        del folder
        shift = moving.geometry.centre - fixed.geometry.centre
        transform = AffineTransform.translation(shift) if self.centred else AffineTransform.identity()
        return Found(transform, 0.0, None)


@dataclass(frozen=True)
class PresetMethod:
    """`pddnet.register` with a preset, as a user would call it."""

    name: str
    preset: Preset
    device: str
    training: bool = False

    @property
    def title(self) -> str:
        """In the tables."""
        return f"pddnet {self.name}"

    def absent(self) -> str | None:
        """Why the weights that it needs cannot be had."""
        try:
            network_of(self.preset, torch.device("cpu"))
        except CheckpointError as error:
            return str(error)
        return None

    def for_fold(self, fold: Split, hooks: Hooks) -> ReadyPreset:
        """The same for every fold."""
        del fold
        return ReadyPreset(self.preset, resolve_device(self.device), hooks)


@dataclass(frozen=True)
class ReadyPreset:
    """A preset that may be stopped."""

    preset: Preset
    device: torch.device
    hooks: Hooks
    training_seconds: float | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The version of the package, all settings of the preset, and where it runs."""
        weights = Path(self.preset.weights)  # a name stands for weights of a known hash
        return {
            "pddnet": pddnet.__version__,
            "preset": to_json(asdict(self.preset)),
            "weights": sha256(weights) if weights.is_file() else None,
            "device": str(self.device),
        }

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> Found:
        """Register as `pddnet.register` does."""
        del folder

        def work() -> SpatialTransform:
            found = register(
                fixed,
                moving,
                preset=self.preset,
                device=str(self.device),
                cancelled=self.hooks.cancelled,
            )
            return found.displacement

        return measured(work, self.device)
