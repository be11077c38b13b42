"""What a process that computes sets up before PyTorch is imported, and says about itself without importing it."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_NICENESS = 5  # of 19; an idle machine gives all its time all the same
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MMAP_THRESHOLDS = (
    1 << 28,
    1 << 25,
)  # bytes, beyond which memory goes back; older versions take the second at most
_NEVER = 2**31 - 1
_PACKAGES = ("torch", "numpy", "SimpleITK")


def let_waiting_threads_sleep() -> None:
    """Before PyTorch is imported: its threads would spin while they wait, and starve a busy machine.

    What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed_memory() -> None:
    """Let this process reuse the memory of large arrays that it has freed, instead of asking for fresh pages.

    A fresh page costs the kernel more time than most computations on it. Arrays of up to 256 MB stay with the process
    until it ends; larger ones go back at once. glibc alone can be asked; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        if all(mallopt(_M_MMAP_THRESHOLD, bytes_) != 1 for bytes_ in _MMAP_THRESHOLDS):
            return
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For imports: each would be searched for garbage several times while there is none, a sixth of PyTorch's time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def leave_at_once(code: int) -> NoReturn:
    """End this process, its output written out, without taking PyTorch's modules apart: that takes 0.3 s."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
