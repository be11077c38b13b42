"""What is compared: anything that finds a transform between two scans, ready for one fold."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from pddnet.cross_validation.pairs import Split
from pddnet.memory import forget_peak_memory, peak_memory_mb
from pddnet.progress import Progress
from pddnet.volume import Volume
from pddnet.warp import SpatialTransform


@dataclass(frozen=True)
class Found:
    """What a method found: fixed -> moving, mm LPS; wall time; peak memory in 10^6 bytes, None if not known."""

    transform: SpatialTransform
    seconds: float
    peak_mb: float | None


class Ready(Protocol):
    """A method that registers, for the scans of one fold."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its results depend on beside the scans, as JSON: version, settings, hash of the weights."""

    @property
    def training_seconds(self) -> float | None:
        """How long its training on this fold took; None where it does not learn."""

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> Found:
        """Find the transform; `folder` is empty and goes away afterwards."""


@dataclass(frozen=True)
class Hooks:
    """Whom a method tells how far it is, and whom it asks whether to stop."""

    on_progress: Callable[[Progress], None] = field(default=lambda _: None)
    cancelled: Callable[[], bool] = field(default=lambda: False)


class Contender(Protocol):
    """A method of the comparison.

    `name` is how the command line calls it, `title` how the tables do. `training` says whether `for_fold` takes long.
    """

    @property
    def name(self) -> str:
        """On the command line."""

    @property
    def title(self) -> str:
        """In the tables."""

    @property
    def training(self) -> bool:
        """Whether it learns from a fold's training scans."""

    def absent(self) -> str | None:
        """None, or why it cannot run here."""

    def for_fold(self, fold: Split, hooks: Hooks) -> Ready:
        """The method for one fold, trained on its training scans if it learns."""


def measured(work: Callable[[], SpatialTransform], device: torch.device) -> Found:
    """Run something in this process with its wall time and peak memory.

    On a GPU the memory is that of the tensors on it. On the CPU it is that of the whole process, libraries and the
    scans in memory included, as for a program of its own; None where it cannot be told apart from what was before.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    gc.collect()  # what a training has left is not this run's
    fresh, before = forget_peak_memory(), peak_memory_mb()
    began = time.perf_counter()
    transform = work()
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - began
    if on_gpu:
        return Found(transform, seconds, torch.cuda.max_memory_allocated(device) / 1e6)
    peak = peak_memory_mb()
    return Found(transform, seconds, peak if fresh or peak > before else None)
