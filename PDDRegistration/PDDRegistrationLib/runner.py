"""One run of the worker, from its private folder to its last event; whatever happens, nothing of it stays behind.

run = WorkerRun(workerCommand(python), workerEnvironment(...))
...                                 # write arrays and request.json into run.folder
run.start()
while not run.over: run.poll()      # events; never waits
...                                 # read the result's files
run.close()
"""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pddnet.errors import InputError
from pddnet.job import Alive, Event, Failed, Logged, Progressed, Started, Succeeded, parse_event

from .child_process import ChildProcess
from .diagnosis import diagnosis, hanging, neverStarted
from .python_environment import BACKEND, workerLaunch
from .settings import RegistrationError, RegistrationSettings
from .warm_worker import WarmWorker

_POLL_SECONDS = 0.02
_LONGEST_LOG = 2000  # characters of a line that is no event


@dataclass(frozen=True)
class Patience:
    """Seconds after which a worker counts as hanging."""

    start: float = 180.0  # until its first words; a virus scanner may read all of Python first
    silence: float = 60.0  # without a sign of life, which comes every second
    standstill: float = 1800.0  # with signs of life, but without any progress


class WorkerRun:
    """A private folder and, from `start()` on, a worker that works in it.

    Ways in which a worker fails without saying so end in a `Failed` event too, with a code of its own: "memory" (ended
    by the system), "crash", "hang" or "python" (it could not be started).

    Args:
        warm: may hold a worker that waits already; one that cannot be used is replaced unnoticed.

    Raises:
        RegistrationError: the folder cannot be made.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        warm: WarmWorker | None = None,
        patience: Patience | None = None,
        temporaryFolder: str | Path | None = None,
    ):
        self._command = list(command)
        self._environment = environment
        self._watch = _Watch(patience or Patience())
        self._folder = _privateFolder(temporaryFolder)
        self._warm = warm
        self._child: ChildProcess | None = None
        self._waited = False  # the child is a warm worker
        self._workerPid = 0
        self._waiting: list[Event] = []
        self._over = self._closed = False

    @classmethod
    def forSettings(cls, settings: RegistrationSettings, warm: WarmWorker | None = None) -> WorkerRun:
        """A run of the backend's worker with the Python that `settings` names, Slicer's own by default."""
        import slicer

        return cls(*workerLaunch(settings.python, slicer), warm=warm)

    @property
    def folder(self) -> Path:
        """For the request and its arrays; only the user can read it (mode 700). Gone after `close()`."""
        return self._folder

    @property
    def over(self) -> bool:
        """Whether the last event was given, or the run was closed."""
        return self._over

    def start(self) -> None:
        """Start the worker on the request in the folder; a failure to do so is the first event."""
        if self._closed or self._child:
            raise RuntimeError("a WorkerRun starts once and not after close() or cancel(); make another one")
        self._child = self._warmChild()
        self._waited = self._child is not None
        if not self._waited:
            self._startAnew()

    def _warmChild(self) -> ChildProcess | None:
        """A worker that has waited and now knows our folder."""
        child = self._warm.take(self._command, self._environment) if self._warm else None
        if child is not None and not child.say(str(self._folder)):
            child.end()
            return None
        return child

    def _startAnew(self) -> None:
        command = [*self._command, str(self._folder), "--private"]
        try:
            self._child = ChildProcess(command, self._environment, workingFolder=BACKEND)
        except OSError as error:
            self._waiting.append(neverStarted(self._command[0], error))

    def poll(self) -> list[Event]:
        """The events since the last call, in order; takes some 20 ms at most.

        The last one of a run is a `Succeeded` or a `Failed`; after `close()` there are none.
        """
        events, self._waiting = self._waiting, []
        if self._child and not self._over:
            self._listen(self._child, events)
        self._over = self._over or any(isinstance(event, Succeeded | Failed) for event in events)
        return events

    def cancel(self) -> None:
        """End the run at once, at any stage."""
        self.close()

    def close(self) -> None:
        """Leave no process, pipe or file; well under a second, at any stage, and twice if need be."""
        self._over = self._closed = True
        self._waiting.clear()
        if self._child:
            self._child.end(self._workerPid)
        _removeFolder(self._folder)

    def __enter__(self) -> WorkerRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, child: ChildProcess, events: list[Event]) -> None:
        """Add what has come to `events`, up to the last one of the run."""
        exitCode = child.exitCode  # before reading, so that nothing it wrote is missed
        until = time.monotonic() + _POLL_SECONDS
        for line in child.lines():
            events.append(_understood(line))
            if isinstance(events[-1], Started):
                self._workerPid = events[-1].pid
            if isinstance(events[-1], Succeeded | Failed):
                return
            if time.monotonic() > until:
                break
        else:
            if exitCode is not None:
                self._diagnose(child, exitCode, events)
                return
        problem = self._watch.problem(events, time.monotonic())
        if problem:
            child.end(self._workerPid)
            events.append(hanging(problem, child.lastWords))

    def _diagnose(self, child: ChildProcess, exitCode: int, events: list[Event]) -> None:
        """The process has ended and all it said was read: end what it left behind and say why."""
        rest = child.rest()
        last = [_understood(rest)] if rest else []
        child.end(self._workerPid)
        if self._waited and not self._workerPid:  # it was dying when it was told: as if there had been none
            self._waited = False
            self._startAnew()
            return
        events += last
        if not any(isinstance(event, Succeeded | Failed) for event in last):
            events.append(diagnosis(exitCode, child.lastWords, self._command[0], bool(self._workerPid)))


def _understood(line: str) -> Event:
    """The event on a line; a line that is none (a library's print) is kept as a message."""
    try:
        return parse_event(line)
    except InputError:
        return Logged("info", line[:_LONGEST_LOG])


class _Watch:
    """Notices a worker that says nothing or does not move.

    Only time in which somebody listened counts, at most a second between two calls: the computer may have slept, or
    Slicer may have been busy itself.
    """

    def __init__(self, patience: Patience):
        self._patience = patience
        self._before: float | None = None
        self._started = False
        self._silent = self._still = 0.0
        self._ticks = -1

    def problem(self, events: Sequence[Event], now: float) -> str:
        """What is wrong, or ''; `events` came since the last call, `now` is in seconds."""
        passed = min(now - self._before, 1.0) if self._before is not None else 0.0
        self._before = now
        self._started = self._started or bool(events)
        self._silent = 0.0 if events else self._silent + passed
        self._still = 0.0 if self._moved(events) else self._still + passed
        limit = self._patience.silence if self._started else self._patience.start
        if self._silent > limit:
            return f"The registration has given no sign of life for {limit:.0f} s and was ended."
        if self._still > self._patience.standstill:
            return f"The registration has not moved for {self._patience.standstill:.0f} s and was ended."
        return ""

    def _moved(self, events: Sequence[Event]) -> bool:
        moved = any(isinstance(event, Started | Progressed) for event in events)
        for event in events:
            if isinstance(event, Alive) and event.ticks != self._ticks:
                self._ticks, moved = event.ticks, True
        return moved


def _privateFolder(parent: str | Path | None) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="pdd-registration-", dir=parent))
    except OSError as error:
        raise RegistrationError(
            "files",
            f"No temporary folder for the registration can be made in {parent or tempfile.gettempdir()} "
            f"({error.strerror}). Free space on that disk, or make the folder writable, and press Register again.",
            str(error),
        ) from error


def _removeFolder(folder: Path) -> None:
    """Remove it, within half a second where a dying process still holds files in it, else when Python ends."""
    until = time.monotonic() + 0.4
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        if time.monotonic() > until:
            logging.warning("PDDRegistration: %s is still in use and is removed when Slicer ends", folder)
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return
        time.sleep(0.02)
