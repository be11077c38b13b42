"""The Python that the worker runs in: Slicer's own or another, and the environment variables it gets."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BACKEND = Path(__file__).resolve().parent.parent  # the folder that holds pddnet
_WORKER = ("-m", "pddnet.worker")
_PROGRAMS = ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe")
_TO_FORGET = (  # what leads another Python, or its libraries, into Slicer's folders
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONNOUSERSITE",
    "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__",
)
_QT_PLUGINS = ("QT_PLUGIN_PATH", "QT_QPA_PLATFORM_PLUGIN_PATH")


def slicerPython(slicerModule: Any) -> str:
    """The program of Slicer's own Python; where there is no application, the one that runs this."""
    name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    home = getattr(getattr(slicerModule, "app", None), "slicerHome", "")
    beside = Path(home, "bin", name)
    if home and beside.is_file():
        return str(beside)
    return shutil.which("PythonSlicer") or sys.executable  # in a build tree it is on the PATH


def chosenPython(chosen: str) -> str:
    """The program meant by `chosen`: a program, or the folder of a virtual or conda environment."""
    path = Path(chosen).expanduser()
    if path.is_dir():
        found = [path / program for program in _PROGRAMS if (path / program).is_file()]
        return str(found[0] if found else path)
    return str(path) if path.parent != Path() else chosen  # a bare name is looked up on the PATH


def workerCommand(chosen: str, slicerModule: Any) -> list[str]:
    """The command that `WorkerRun` completes; `chosen` as in the settings, "" for Slicer's own Python."""
    return [chosenPython(chosen) if chosen else slicerPython(slicerModule), *_WORKER]


def workerLaunch(chosen: str, slicerModule: Any) -> tuple[list[str], dict[str, str]]:
    """`workerCommand` and `workerEnvironment` for `chosen`."""
    environment = workerEnvironment(chosen, slicerModule.util.startupEnvironment)
    return workerCommand(chosen, slicerModule), environment


def workerEnvironment(chosen: str, startupEnvironment: Callable[[], Mapping[str, str]]) -> dict[str, str]:
    """The worker's environment variables.

    Args:
        chosen: as in the settings; "" for Slicer's own Python, which needs the variables Slicer has set.
        startupEnvironment: returns the variables from before Slicer started (`slicer.util.startupEnvironment`),
            without Slicer's library folders; asked only for another Python.
    """
    variables = dict(startupEnvironment() if chosen else os.environ)
    for name in (*_QT_PLUGINS, *(_TO_FORGET if chosen else ())):
        variables.pop(name, None)
    before = variables.get("PYTHONPATH")
    variables["PYTHONPATH"] = os.pathsep.join([str(BACKEND), *([before] if before else [])])
    variables["PYTHONIOENCODING"] = "utf-8"
    variables["PYTHONFAULTHANDLER"] = "1"  # a crash leaves its place on standard error
    if chosen:
        variables["PATH"] = os.pathsep.join([*_ownFolders(chosenPython(chosen)), variables.get("PATH", "")])
    return variables


def _ownFolders(python: str) -> list[str]:
    """The folders that activating the environment of `python` would put onto the PATH: conda's libraries need it."""
    home = Path(python).parent
    if home == Path():
        return []
    libraries = home / "Library" / "bin"
    return [str(home), *([str(libraries)] if libraries.is_dir() else [])]
