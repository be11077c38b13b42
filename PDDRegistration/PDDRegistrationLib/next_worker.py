"""When a worker is prepared for the panel's next run, and when it is ended because none came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from .python_environment import workerLaunch
from .requirements import missing
from .settings import RegistrationSettings
from .warm_worker import WarmWorker

_PAUSE_MS = 300  # after a run: its results are shown first
_IDLE_MS = 600_000  # it holds some 250 MB, which others may need


class NextWorker:
    """Prepares the worker of the panel's next run, and ends it where none comes.

    Args:
        eventLoop: a `QtEventLoop`.
        installed: whether Slicer's own Python has what the worker needs.
    """

    def __init__(self, eventLoop: Any, installed: Callable[[], bool] = lambda: not missing()) -> None:
        self._eventLoop, self._installed = eventLoop, installed
        self.warm = WarmWorker()
        self._turn = 0  # what was put off in an earlier turn is not done any more

    def prepare(self, settings: RegistrationSettings) -> None:
        """A run is over: soon have a worker for another one with these settings."""
        self._later(_PAUSE_MS, lambda: self._start(settings))

    def hold(self) -> None:
        """A run begins: start none beside it, and end none before it is taken."""
        self._turn += 1

    def close(self) -> None:
        """Leave no process and start none."""
        self._turn += 1
        self.warm.close()

    def _start(self, settings: RegistrationSettings) -> None:
        if not settings.python and not self._installed():
            return
        self.warm.prepare(*workerLaunch(settings.python, slicer))
        self._later(_IDLE_MS, self.warm.close)

    def _later(self, milliseconds: int, function: Callable[[], None]) -> None:
        """Call the function unless something else has come up by then."""
        self._turn += 1
        turn = self._turn
        self._eventLoop.later(milliseconds, lambda: function() if turn == self._turn else None)
