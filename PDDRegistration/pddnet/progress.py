"""How a long computation says where it is, and how it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pddnet.errors import RegistrationCancelled


@dataclass(frozen=True)
class Progress:
    """One report: the stage that begins, the fraction of the whole that is done (0 to 1), and a sentence for people."""

    stage: str
    fraction: float
    message: str

    def __str__(self) -> str:
        return f"{self.fraction:4.0%} {self.message}"


class Listener(Protocol):
    """Who hears of a long computation in another process."""

    def progressed(self, progress: Progress) -> None:
        """A stage begins."""

    def logged(self, level: Literal["info", "warning"], message: str) -> None:
        """There is something people should know."""

    def ticked(self) -> None:
        """The computation has moved."""


@dataclass
class Reporter:
    """Reports stages of known relative cost, times them, and stops where the caller asks for it.

    Args:
        costs: relative cost of each stage, by name, in order.
        on_progress: told at the beginning of each stage and at the end.
        cancelled: asked between pieces of work.
    """

    costs: Mapping[str, float]
    on_progress: Callable[[Progress], None] | None = None
    cancelled: Callable[[], bool] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, message: str) -> Iterator[None]:
        """Report, run and time one stage."""
        self.tick()
        self.tell(name, message)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def tick(self) -> None:
        """Called between pieces of work.

        Raises:
            RegistrationCancelled: the caller wants to stop.
        """
        if self.cancelled is not None and self.cancelled():
            raise RegistrationCancelled("the registration was cancelled; nothing was changed")

    def done(self) -> None:
        """Report the end."""
        self.tell("done", "done")

    def tell(self, name: str, message: str) -> None:
        """Report within the stage `name`."""
        if self.on_progress is not None:
            total = sum(self.costs.values())
            finished = sum(self.costs.get(stage, 0.0) for stage in self.seconds)
            self.on_progress(Progress(name, 1.0 if name == "done" else min(1.0, finished / total), message))
