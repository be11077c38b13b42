"""`python -m pddnet.worker FOLDER`: do what FOLDER/request.json asks for, in a process of its own.

`--wait` in place of FOLDER: load what the work needs, then wait without a word for a line on standard input, which is
the folder; from there on it is the same.

Standard output carries one event a line and nothing else; `pddnet.job` describes requests, events and results. Standard
input stays open as long as the program that asked is there; when it ends, so does this process. Exit codes: 0 after a
result, 1 after an error, 3 when the other program is gone.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

import pddnet
from pddnet.errors import DeviceError, InputError, is_out_of_memory
from pddnet.job_events import Failed, Started
from pddnet.process import (
    installed_versions,
    keep_freed_memory,
    let_others_go_first,
    let_waiting_threads_sleep,
    without_garbage_collection,
)
from pddnet.published_weights import CheckpointError
from pddnet.worker_channel import Channel, leave, taken_over_stdin, taken_over_stdout, watch

REQUEST = "request.json"  # as in `pddnet.job`, which needs NumPy: that may be missing
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # numpy's words, without a number


class MissingPackageError(Exception):
    """A package this process needs is not installed, or broken."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Take over the standard streams, do one job, and say how it went. Returns the exit code."""
    parsed = _parsed(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # end at once, whatever this process has inherited
    let_others_go_first()
    folder: Path | None = parsed.folder
    known = threading.Event()

    def gone() -> None:
        if not channel.over:
            ours = parsed.private and folder is not None and (folder / REQUEST).is_file()
            leave(str(folder) if ours else None)

    def begin(place: str | Path) -> None:
        nonlocal folder
        folder = Path(place)
        channel.send(Started(os.getpid(), {"pddnet": pddnet.__version__, **installed_versions()}))
        channel.start_heartbeat()
        known.set()

    channel = Channel(taken_over_stdout(), parent_gone=gone)
    if folder is not None:
        begin(folder)
    watch(taken_over_stdin(), gone, None if known.is_set() else begin)
    problem = None if known.is_set() else _problem_with_loading()
    known.wait()
    assert folder is not None  # known
    if problem is not None:
        channel.send(failure(problem), last=True)
        return 1
    return work(folder, channel)


def work(folder: Path, channel: Channel) -> int:
    """Do the folder's job and send its result or its error; the exit code."""
    try:
        load()
        from pddnet.job import read_request
        from pddnet.worker_jobs import run

        result = run(read_request(folder), folder, channel)
    except Exception as error:
        channel.send(failure(error), last=True)
        return 1
    channel.send(result, last=True)
    return 0


def load() -> None:
    """Import everything the work needs; a second time costs nothing.

    Raises:
        MissingPackageError: with what to install, and for which Python.
    """
    let_waiting_threads_sleep()
    keep_freed_memory()
    with without_garbage_collection():
        _check_packages()
        import pddnet.worker_jobs  # noqa: F401


def failure(error: BaseException) -> Failed:
    """What people are told about an exception."""
    details = "".join(traceback.format_exception(error))
    text = " ".join(str(error).split())
    said = text.lower()
    if isinstance(error, MissingPackageError):
        return Failed("missing", text, details)
    if is_out_of_memory(error):
        remedy = "close other programs, crop the scans, or choose a preset with a coarser working grid"
        return Failed(
            "memory", text if "close other" in said else f"memory ran out ({text}); {remedy}", details
        )
    if isinstance(error, CheckpointError):
        return Failed("weights", text, details)
    if isinstance(error, DeviceError):
        return Failed("device", text, details)
    if isinstance(error, InputError):
        return Failed("input", text, "")
    if isinstance(error, RuntimeError) and ("cuda" in said or "cudnn" in said or "cublas" in said):
        return Failed(
            "device", f"the GPU failed ({text}); choose the CPU as device, or update the driver", details
        )
    if isinstance(error, OSError) and (error.errno in _FULL or _SHORT_WRITE.search(said)):
        return Failed("internal", "the disk of the temporary folder is full; free some space there", details)
    return Failed(
        "internal", f"unexpected {type(error).__name__}: {text}; please report it with the details", details
    )


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pddnet.worker", description="Do one job for another program."
    )
    parser.add_argument("folder", type=Path, nargs="?", help="holds request.json and what it names")
    parser.add_argument(
        "--private", action="store_true", help="remove the folder if the other program is gone"
    )
    parser.add_argument(
        "--wait", action="store_true", help="get ready, and read the folder from standard input"
    )
    parsed = parser.parse_args(arguments)
    if parsed.wait == (parsed.folder is not None):
        parser.error("give a folder, or --wait to read it from standard input, and not both")
    return parsed


def _problem_with_loading() -> Exception | None:
    """Load; what went wrong is told once somebody listens."""
    try:
        load()
    except Exception as error:
        return error
    return None


def _check_packages() -> None:
    """Refuse to go on without what all jobs need.

    Raises:
        MissingPackageError: with what to install, and for which Python.
    """
    try:
        import numpy  # noqa: F401
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a library of PyTorch's own that cannot be loaded
        name = getattr(error, "name", None) or "torch"
        missing = isinstance(error, ModuleNotFoundError) and name in ("torch", "numpy")
        package = "NumPy" if name == "numpy" else "PyTorch"
        problem = "is not installed" if missing else f"cannot be loaded ({error})"
        raise MissingPackageError(
            f"{package} {problem} for the Python that registers ({sys.executable}); in 3D Slicer install it with the "
            f"PyTorch extension, elsewhere with `pip install {'numpy' if name == 'numpy' else 'torch'}`, or choose "
            "another Python environment"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
