"""The machine, and what a registration may not leave on it: processes and files."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import slicer

_WINDOWS = [
    *("powershell", "-NoProfile", "-Command"),
    'Get-CimInstance Win32_Process | ForEach-Object { "$($_.ProcessId) $($_.CommandLine)" }',
]


def about() -> dict[str, Any]:
    """What a reader of the report wants to know first."""
    app = slicer.app
    versions = {name: _version(name) for name in ("numpy", "torch", "SimpleITK")}
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "application": f"{app.applicationName} {app.applicationVersion} ({app.revision})",
        "python": sys.version.split()[0],
        **versions,
        "system": f"{platform.platform()}, {os.cpu_count()} cores",
    }


def workers(folder: Path, pids: Collection[int]) -> list[str]:
    """Numbers and command lines of running workers that name this folder, or that have one of these numbers.

    A worker that was told its folder when it had started does not name it.
    """
    if Path("/proc/self/cmdline").exists():
        lines = _fromProc()
    else:
        command = _WINDOWS if os.name == "nt" else ["ps", "-axww", "-o", "pid=,command="]
        told = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
        lines = told.stdout.splitlines()
    running = [line.strip() for line in lines if "pddnet.worker" in line]
    return [line for line in running if str(folder) in line or int(line.split()[0]) in pids]


def leftIn(folder: Path) -> list[str]:
    """What is still in the temporary folder."""
    return sorted(path.name for path in folder.iterdir())


def _fromProc() -> list[str]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                lines.append(f"{entry.name} {command}")
            except OSError:  # it has just ended, or belongs to somebody else
                continue
    return lines


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
