"""`python -m pddnet.benchmarks.peak FILE PROGRAM [ARGUMENT ...]`: run a program and leave its peak memory in FILE.

PROGRAM is a module's name or a path that ends with .py. FILE gets megabytes (10^6 bytes) of this process, however the
program ends. Asking the operating system from outside would count what the parent had occupied before.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from pddnet.memory import peak_memory_mb


def main() -> None:
    """Run the program of the command line in this process."""
    file, program, *_ = sys.argv[1:]
    sys.argv = sys.argv[2:]
    _note_before_leaving_at_once(Path(file))
    try:
        if program.endswith(".py"):
            sys.path.insert(0, str(Path(program).parent))  # as Python does for a script
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        _note(Path(file))


def _note(file: Path) -> None:
    file.write_text(repr(peak_memory_mb()), encoding="ascii")


def _note_before_leaving_at_once(file: Path) -> None:
    """The command line ends by os._exit, which runs nothing that waits for the end."""
    leave = os._exit

    def note_and_leave(status: int) -> NoReturn:
        _note(file)
        leave(status)

    os._exit = note_and_leave


if __name__ == "__main__":
    main()
