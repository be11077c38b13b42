"""`python launch.py REPORT PROGRAM [ARGUMENT ...]`: run a program; leave its time and peak memory in REPORT, as JSON.

Run by path with an isolated interpreter, and small on purpose: Linux counts what the parent occupies as the child's at
the moment it is born, so a child of a process that has loaded PyTorch would seem to need as much. REPORT has `seconds`
and `peak_bytes`: of the program or of the largest process that it started and waited for; null where the system cannot
tell. Imports nothing of pddnet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

_CANNOT_START = 127


def main(report: str, *command: str) -> int:
    """Run the command; returns its exit code, -N where signal N ended it."""
    began = time.perf_counter()
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return _CANNOT_START
    peak: int | None = None
    if sys.platform == "win32":
        code = child.wait()
    else:
        _, status, usage = os.wait4(child.pid, 0)
        code = child.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    seconds = time.perf_counter() - began
    with open(report, "w", encoding="utf-8") as file:
        json.dump({"seconds": seconds, "peak_bytes": peak}, file)
    return code


if __name__ == "__main__":
    ended = main(*sys.argv[1:])
    sys.exit(ended if ended >= 0 else 128 - ended)
