"""Programs of others in processes of their own: timed, their memory measured, ended when the caller wants to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pddnet.errors import RegistrationCancelled

Command = Sequence[str | Path]

_LAUNCHER = Path(__file__).with_name("launch.py")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
_POLL = 0.1  # seconds
_TAIL = 2000  # characters of what a program said
_POSIX = os.name == "posix"


class ProgramFailed(RuntimeError):
    """A program ended with an error; the message has its command, exit code and last words."""


@dataclass(frozen=True)
class ChildCost:
    """What a program took: wall time, and the most that one process of it held, 10^6 bytes, if known."""

    seconds: float
    peak_mb: float | None

    @classmethod
    def total(cls, costs: Sequence[ChildCost]) -> ChildCost:
        """Of programs that ran one after the other: times add, the largest memory counts."""
        peaks = [cost.peak_mb for cost in costs if cost.peak_mb is not None]
        return cls(sum(cost.seconds for cost in costs), max(peaks, default=None))


def run_program(
    command: Command,
    folder: Path,
    threads: int,
    cancelled: Callable[[], bool] | None = None,
) -> ChildCost:
    """Run a program to its end.

    Whatever ends this function ends the program and all that it started too.

    Args:
        folder: where it runs.
        threads: how many it may use, told by the usual environment variables.
        cancelled: asked ten times a second.

    Raises:
        RegistrationCancelled: `cancelled` said yes.
        ProgramFailed: it cannot be started, ended with an exit code other than 0, or was ended by a signal.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory(prefix="pddnet-child-") as place:
        report, said = Path(place, "report.json"), Path(place, "said.txt")
        with said.open("w+b") as output:
            launched = [sys.executable, "-I", "-S", str(_LAUNCHER), str(report), *words]
            with _started(launched, folder, threads, output) as child:
                code = _wait(child, cancelled)
        if code != 0:
            last = said.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip() or "it said nothing"
            raise ProgramFailed(f"{' '.join(words)} ended with {code}:\n{last}")
        found = json.loads(report.read_text(encoding="utf-8"))
    peak = found["peak_bytes"]
    return ChildCost(found["seconds"], None if peak is None else peak / 1e6)


@contextmanager
def _started(
    command: Sequence[str], folder: Path, threads: int, output: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(threads),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=_POSIX,  # a group of its own, which can be ended whole
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            _end(child)
            child.wait()


def _environment(threads: int) -> dict[str, str]:
    """This process's; no thread spins while it waits, and what was relative to the folder of today still holds."""
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **dict.fromkeys(_THREADS, str(threads))}
    if paths := environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in paths.split(os.pathsep))
    return environment


def _wait(child: subprocess.Popen[bytes], cancelled: Callable[[], bool] | None) -> int:
    while True:
        try:
            return child.wait(_POLL)
        except subprocess.TimeoutExpired:
            if cancelled is not None and cancelled():
                raise RegistrationCancelled("the registration was cancelled; nothing was changed") from None


def _end(child: subprocess.Popen[bytes]) -> None:
    """The launcher and what it started; on Windows by the tool that ends a tree of processes."""
    if _POSIX:
        os.killpg(child.pid, signal.SIGKILL)
    else:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)
