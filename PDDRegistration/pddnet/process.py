"""What a process that computes sets up before PyTorch is imported, and says about itself without importing it."""

from __future__ import annotations

import importlib.metadata
import os
import platform

_NICENESS = 5  # of 19; an idle machine gives all its time all the same
_PACKAGES = ("torch", "numpy", "SimpleITK")


def let_waiting_threads_sleep() -> None:
    """Before PyTorch is imported: its threads would spin while they wait, and starve a busy machine.

    What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def let_others_go_first() -> None:
    """Lower this process's priority, so that the program that waits for it stays responsive on the same cores.

    POSIX; on Windows whoever starts the process asks for it.
    """
    if hasattr(os, "nice"):
        os.nice(_NICENESS)


def installed_versions() -> dict[str, str]:
    """Versions of Python, and of the packages needed as far as they are installed; nothing is imported."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a package without metadata, or none: not known
            continue
    return versions
