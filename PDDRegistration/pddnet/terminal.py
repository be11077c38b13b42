"""Progress, interruption and quiet on a terminal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from pddnet.errors import RegistrationCancelled
from pddnet.progress import Progress

_BAR = 30


class ProgressDisplay:
    """Shows progress: a bar that is redrawn on a terminal, a line for each stage elsewhere.

    Args:
        stream: where to; standard error by default, so that standard output stays for results.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._shown = ""

    def __call__(self, progress: Progress) -> None:
        """Show this state."""
        filled = round(_BAR * min(max(progress.fraction, 0.0), 1.0))
        bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] {progress.fraction:4.0%} {progress.message}"
        text = bar if self._is_terminal else progress.message
        if text == self._shown:
            return
        if self._is_terminal:
            self._stream.write(f"\r{bar:<{len(self._shown)}}")
        else:
            self._stream.write(f"{progress.fraction:4.0%} {progress.message}\n")
        self._stream.flush()
        self._shown = text

    def close(self) -> None:
        """End the line of the bar."""
        if self._is_terminal and self._shown:
            self._stream.write("\n")
            self._stream.flush()
        self._shown = ""


class Interruption:
    """Ctrl-C and SIGTERM as a question to be asked now and then; a second signal interrupts at once.

    Used as a context; outside the main thread, where Python allows no signal handlers, nobody interrupts.

    Args:
        immediate: for work that never asks: the first signal interrupts it.
    """

    def __init__(self, immediate: bool = False) -> None:
        self._immediate = immediate
        self._wanted = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def requested(self) -> bool:
        """Whether somebody wants the work to stop."""
        return self._wanted

    def check(self) -> None:
        """Stop here if somebody wants the work to stop.

        Raises:
            RegistrationCancelled: somebody does.
        """
        if self._wanted:
            raise RegistrationCancelled("cancelled; nothing was written")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._immediate or self._wanted:
            raise KeyboardInterrupt
        self._wanted = True


@contextmanager
def native_messages_hidden() -> Iterator[None]:
    """Keep what C and C++ libraries (ITK, HDF5) print off the terminal; Python's own messages still show."""
    if sys.stderr is not sys.__stderr__ or sys.stderr is None or sys.stderr.fileno() != 2:
        yield  # somebody captures standard error: leave it to them
        return
    original = sys.stderr
    original.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(kept), "w", buffering=1) as shown:
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = shown
        try:
            yield
        finally:
            sys.stderr = original
            os.dup2(kept, 2)
            os.close(kept)
