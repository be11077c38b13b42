"""Long work in small steps on the main thread: polled, cancelled, and told about, without Qt."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

WAITING = "waiting"  # yielded by a step that can do nothing until another process has

_BUDGET_S = 0.03  # how long one poll may work; the event loop gets its turn after it
_POLL_MS = 30
_TELL_FROM = 0.04  # the remaining time is not guessed before this fraction is done


@dataclass(frozen=True)
class TaskProgress:
    """Where a task is: `fraction` of the whole, 0 to 1; times in seconds, `remaining` None while nobody can tell."""

    stage: str = ""
    fraction: float = 0.0
    message: str = ""
    elapsed: float = 0.0
    remaining: float | None = None


@dataclass(frozen=True)
class Callbacks:
    """What is called, on the main thread, as a task goes on; of the last three exactly one, once."""

    onProgress: Callable[[TaskProgress], None] | None = None
    onFinished: Callable[[Any], None] | None = None
    onFailed: Callable[[Exception], None] | None = None
    onCancelled: Callable[[], None] | None = None


class Task:
    """Work that goes on while it is polled.

    Args:
        work: given this task, a generator that does a little (well under 50 ms) between its yields and returns the
            result. Closing it must leave nothing behind.
        callbacks: see `Callbacks`.
        eventLoop: polls the task by itself if there is one; else `poll` is for the caller.
    """

    def __init__(
        self,
        work: Callable[[Task], Generator[Any, None, Any]],
        callbacks: Callbacks | None = None,
        eventLoop: Any = None,
    ) -> None:
        self.state = "running"  # then "finished", "failed" or "cancelled"
        self.progress = TaskProgress()
        self.error: Exception | None = None
        self.outputs: Any = None
        self.messages: list[str] = []  # what the work wants people to read, in order
        self._callbacks = callbacks or Callbacks()
        self._began = time.monotonic()
        self._work = work(self)
        self._eventLoop = eventLoop
        self._inside = False
        self._cancelWanted = False
        if eventLoop is not None:
            eventLoop.later(0, self._pollAgain)

    def poll(self) -> bool:
        """Do a little; True once the task is over."""
        if self.state != "running" or self._inside:  # inside: a callback or a node's observer polls again
            return self.state != "running"
        self._inside = True
        try:
            self._step()
        finally:
            self._inside = False
        if self._cancelWanted and self.state == "running":
            self._end("cancelled")
        return self.state != "running"

    def cancel(self) -> None:
        """Stop now; nothing of the task remains. Without effect once it is over."""
        self._cancelWanted = True
        if self.state == "running" and not self._inside:
            self._end("cancelled")

    def tell(self, stage: str, fraction: float, message: str) -> None:
        """Called by the work: where it is."""
        elapsed = time.monotonic() - self._began
        fraction = min(1.0, max(fraction, self.progress.fraction))  # a progress bar does not go back
        remaining = elapsed * (1 - fraction) / fraction if fraction >= _TELL_FROM else None
        self.progress = TaskProgress(stage, fraction, message, elapsed, remaining)
        if self._callbacks.onProgress is not None:
            self._callbacks.onProgress(self.progress)

    def log(self, level: str, message: str) -> None:
        """Called by the work: something people should read; also told at once with the present progress."""
        if level == "warning":
            self.messages.append(message)
        self.tell(self.progress.stage, self.progress.fraction, message)

    def elapsed(self) -> float:
        """Seconds since the beginning, also between two reports."""
        return time.monotonic() - self._began

    def _step(self) -> None:
        until = time.monotonic() + _BUDGET_S
        try:
            while not self._cancelWanted and time.monotonic() < until:
                if next(self._work) is WAITING:
                    break
        except StopIteration as finished:
            self.outputs = finished.value
            self.progress = replace(self.progress, fraction=1.0, elapsed=self.elapsed(), remaining=0.0)
            self._end("finished")
        except Exception as error:
            self.error = error
            self._end("failed")
        except BaseException:  # Ctrl+C ends the work too: there is nothing left to poll
            self._end("cancelled")
            raise

    def _end(self, state: str) -> None:
        self._work.close()
        self.state = state
        if state == "finished":
            _call(self._callbacks.onFinished, self.outputs)
        elif state == "failed":
            _call(self._callbacks.onFailed, self.error)
        else:
            _call(self._callbacks.onCancelled)

    def _pollAgain(self) -> None:
        if not self.poll():
            self._eventLoop.later(_POLL_MS, self._pollAgain)


def _call(callback: Callable[..., None] | None, *arguments: Any) -> None:
    if callback is not None:
        callback(*arguments)
