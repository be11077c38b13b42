"""The machine, and what a registration may not leave on it: processes and files."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import slicer

_WINDOWS = ["powershell", "-NoProfile", "-Command", "(Get-CimInstance Win32_Process).CommandLine"]


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


def processesWith(folder: Path) -> list[str]:
    """The command lines of running processes that name this folder, as a worker's does."""
    if Path("/proc/self/cmdline").exists():
        lines = _fromProc()
    else:
        command = _WINDOWS if os.name == "nt" else ["ps", "-axww", "-o", "command="]
        told = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
        lines = told.stdout.splitlines()
    return [line for line in lines if str(folder) in line and "pddnet.worker" in line]


def leftIn(folder: Path) -> list[str]:
    """What is still in the temporary folder."""
    return sorted(path.name for path in folder.iterdir())


def _fromProc() -> list[str]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it has just ended, or belongs to somebody else
                continue
    return lines


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
