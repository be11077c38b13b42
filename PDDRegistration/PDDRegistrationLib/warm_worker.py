"""A worker that waits for the next run with everything loaded, which takes it a second or more.

It serves one run and ends with it, as any worker: what happens to a run never reaches the next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .child_process import ChildProcess
from .python_environment import BACKEND


class WarmWorker:
    """At most one waiting worker, and what it was started with."""

    def __init__(self) -> None:
        self._child: ChildProcess | None = None
        self._startedWith: Any = None

    @property
    def pid(self) -> int:
        """Of the waiting process; 0 without one."""
        return self._child.pid if self._alive() else 0

    def prepare(self, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        """Start a worker that waits, unless there is one for the same Python and variables; returns at once.

        Where it cannot be started there is none: the run that wants it starts its own and says what is wrong.
        """
        wanted = _launch(command, environment)
        if self._alive() and self._startedWith == wanted:
            return
        self.close()
        try:
            self._child = ChildProcess([*command, "--wait", "--private"], environment, workingFolder=BACKEND)
        except OSError as error:
            logging.info("PDDRegistration: no worker was prepared (%s)", error)
        self._startedWith = wanted

    def take(self, command: Sequence[str], environment: Mapping[str, str] | None) -> ChildProcess | None:
        """Hand the waiting process over; None, and none is left, if it has died or is another Python's."""
        if not self._alive() or self._startedWith != _launch(command, environment):
            self.close()
            return None
        child, self._child = self._child, None
        return child

    def close(self) -> None:
        """End the waiting process, if any; takes less than half a second on POSIX systems."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _alive(self) -> bool:
        return self._child is not None and self._child.exitCode is None


def _launch(command: Sequence[str], environment: Mapping[str, str] | None) -> tuple[Any, ...]:
    return tuple(command), None if environment is None else dict(environment)
