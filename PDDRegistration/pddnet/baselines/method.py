"""The common face of everything that is compared: two scans in, a transform out, with what it took."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pddnet.volume import Volume
from pddnet.warp import SpatialTransform


@dataclass(frozen=True)
class MethodRun:
    """What a method found and what it took.

    Args:
        transform: fixed -> moving point, mm, LPS.
        seconds: wall time of the registration.
        peak_mb: the most memory that one of its processes held, in 10^6 bytes; None where nobody could tell.
    """

    transform: SpatialTransform
    seconds: float
    peak_mb: float | None


@runtime_checkable
class Method(Protocol):
    """A registration method; `name` is what the command line and the tables call it."""

    @property
    def name(self) -> str:
        """A word without spaces or commas."""
        ...

    def absent(self) -> str | None:
        """None, or the reason why it cannot run here and what to do."""
        ...

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> MethodRun:
        """Register two scans of any geometry; `folder` is empty, to work in."""
        ...
