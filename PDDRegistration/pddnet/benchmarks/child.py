"""Programs in processes of their own, whose time and peak memory are theirs alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pddnet
from pddnet.errors import InputError, InsufficientMemoryError

_BAD_INPUT, _NOT_ENOUGH_MEMORY = 2, 3  # exit codes of the command line


@dataclass(frozen=True)
class ChildRun:
    """What became of a program that prints one JSON document.

    Args:
        report: that document.
        seconds: from the start of Python to its end.
        peak_mb: the most memory it held, in 10^6 bytes.
    """

    report: dict[str, Any]
    seconds: float
    peak_mb: float


def run_json(program: str, arguments: Sequence[object] = (), threads: int | None = None) -> ChildRun:
    """Run a module, or a script whose path ends with .py, and read what it prints.

    Whatever ends this function ends the program too.

    Args:
        threads: how many PyTorch may use; its own choice by default.

    Raises:
        InputError, InsufficientMemoryError: what the program said on its last line, by its exit code.
        RuntimeError: it ended in another way.
    """
    with tempfile.TemporaryDirectory(prefix="pddnet-bench-") as folder:
        peak = Path(folder, "peak")
        command = [sys.executable, "-m", "pddnet.benchmarks.peak", str(peak), program, *map(str, arguments)]
        began = time.perf_counter()
        # kills its child if it is interrupted
        done = subprocess.run(command, env=_environment(threads), capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            raise _failure(program, done.returncode, done.stderr)
        return ChildRun(json.loads(done.stdout), seconds, float(peak.read_text(encoding="ascii")))


def _environment(threads: int | None) -> dict[str, str]:
    """This process's, with this very package first."""
    paths = [str(Path(pddnet.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment if threads is None else {**environment, "OMP_NUM_THREADS": str(threads)}


def _failure(program: str, code: int, said: str) -> Exception:
    last = next((line for line in reversed(said.splitlines()) if line.strip()), f"{program} said nothing")
    if code == _BAD_INPUT:
        return InputError(last)
    if code == _NOT_ENOUGH_MEMORY:
        return InsufficientMemoryError(last)
    return RuntimeError(f"{last} (exit code {code})")
