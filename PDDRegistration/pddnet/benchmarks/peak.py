"""`python -m pddnet.benchmarks.peak FILE PROGRAM [ARGUMENT ...]`: run a program and leave its peak memory in FILE.

PROGRAM is a module's name or a path that ends with .py. FILE gets megabytes (10^6 bytes) of this process, however the
program ends. Asking the operating system from outside would count what the parent had occupied before.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from pddnet.memory import peak_memory_mb


def main() -> None:
    """Run the program of the command line in this process."""
    file, program, *_ = sys.argv[1:]
    sys.argv = sys.argv[2:]
    try:
        if program.endswith(".py"):
            sys.path.insert(0, str(Path(program).parent))  # as Python does for a script
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        Path(file).write_text(repr(peak_memory_mb()), encoding="ascii")


if __name__ == "__main__":
    main()
