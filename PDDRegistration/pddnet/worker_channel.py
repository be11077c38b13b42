"""How a worker speaks to the program that started it, and how it notices that the program is gone."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

from pddnet.job_events import Alive, Event, Logged, Progressed, event_line
from pddnet.progress import Progress

_HEARTBEAT_SECONDS = 1.0
_PARENT_GONE = 3  # exit code
_REMOVAL_ATTEMPTS = 20


class Channel:
    """Events as lines on one file descriptor; the `Listener` of the computation.

    Args:
        descriptor: where the lines go.
        parent_gone: called where nobody reads them any more.
    """

    def __init__(self, descriptor: int, parent_gone: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._parent_gone = parent_gone
        self._lock = threading.Lock()
        self._over = False
        self._ticks = 0

    @property
    def over(self) -> bool:
        """Whether the last event has been sent."""
        return self._over

    def send(self, event: Event, last: bool = False) -> None:
        """Send one event at once; nothing is sent after the last one."""
        data = event_line(event).encode()
        with self._lock:
            if self._over:
                return
            self._over = last
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:  # a broken pipe, however this system calls it
                self._parent_gone()

    def progressed(self, progress: Progress) -> None:
        """Pass a stage on."""
        self.send(Progressed(progress.stage, progress.fraction, progress.message))

    def logged(self, level: Literal["info", "warning"], message: str) -> None:
        """Pass a message on."""
        self.send(Logged(level, message))

    def ticked(self) -> None:
        """Count that the computation has moved."""
        self._ticks += 1

    def start_heartbeat(self) -> None:
        """Say every second that this process is there and how far the ticks have come."""

        def beat() -> None:
            while not self._over:
                time.sleep(_HEARTBEAT_SECONDS)
                self.send(Alive(self._ticks))

        threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def taken_over_stdout() -> int:
    """A descriptor for standard output that only the caller has; what others print goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept


def taken_over_stdin() -> int:
    """A descriptor for standard input that only the caller has; others find an empty input.

    On Windows, libraries that touch standard input while they load would wait for a thread that reads from it.
    """
    kept = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return kept


def watch(descriptor: int, ended: Callable[[], None], told: Callable[[str], None] | None = None) -> None:
    """Call `ended`, in a thread, when a descriptor that is read comes to its end.

    Args:
        told: called, in that thread, with the first line as soon as it is whole.
    """

    def read() -> None:
        line, waiting = b"", told
        try:
            while data := os.read(descriptor, 4096):
                if waiting is not None:
                    line += data
                    if b"\n" in line:
                        waiting(os.fsdecode(line.partition(b"\n")[0]))
                        waiting = None
        except OSError:  # a broken pipe, as some systems call the end
            pass
        ended()

    threading.Thread(target=read, name="parent watch", daemon=True).start()


def leave(private_folder: str | None) -> None:
    """End this process at once, whatever its other threads do; a private folder goes with it."""
    if private_folder is not None:
        for _ in range(_REMOVAL_ATTEMPTS):  # the computation may be writing into it
            shutil.rmtree(private_folder, ignore_errors=True)
            if not os.path.exists(private_folder):
                break
            time.sleep(0.02)
    os._exit(_PARENT_GONE)
