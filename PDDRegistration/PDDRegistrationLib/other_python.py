"""Whether another Python than Slicer's own can run the worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from . import installed_versions
from .child_process import ChildProcess
from .python_environment import BACKEND, chosenPython, workerEnvironment
from .requirements import REQUIREMENTS, DependencyError, chooseAnother, listed, missing, requirementsIn

_OLDEST_PYTHON = (3, 11)


def checkOtherPython(
    chosen: str,
    startupEnvironment: Callable[[], Mapping[str, str]],
    *,
    seconds: float = 30.0,
    path: Path = REQUIREMENTS,
) -> Generator[None, None, None]:
    """Steps that find out whether another Python has what the worker needs; each takes some milliseconds.

    Args:
        chosen: the program or environment's folder, as in the settings.
        startupEnvironment: as of `workerEnvironment`.
        seconds: how long it may take to answer.

    Raises:
        DependencyError: it cannot be used, with what to do.
    """
    program = chosenPython(chosen)
    names = [requirement.name for requirement in requirementsIn(path)]
    command = [program, installed_versions.__file__, *names]
    answer = yield from _answer(command, workerEnvironment(chosen, startupEnvironment), program, seconds)
    python = answer["python"]
    if python < _OLDEST_PYTHON:
        text = _("{program} is Python {version}; the registration needs {oldest} or later. {remedy}")
        raise DependencyError(
            text.format(
                program=program,
                version=".".join(map(str, python)),
                oldest=".".join(map(str, _OLDEST_PYTHON)),
                remedy=chooseAnother(),
            )
        )
    absent = missing(answer["packages"], path)
    if absent:
        text = _('{program} does not have {packages}. Install with: "{program}" -m pip install {arguments}')
        arguments = " ".join(f'"{requirement}"' for requirement in absent)
        raise DependencyError(text.format(program=program, packages=listed(absent), arguments=arguments))


def _answer(
    command: list[str], environment: dict[str, str], program: str, seconds: float
) -> Generator[None, None, dict[str, Any]]:
    """Run `installed_versions` in another Python; returns what it prints."""
    try:
        child = ChildProcess(command, environment, workingFolder=BACKEND)
    except OSError as error:
        raise DependencyError(_notUsable(program, str(error.strerror)), str(error)) from error
    until, said = time.monotonic() + seconds, []
    try:
        while (exitCode := child.exitCode) is None and time.monotonic() < until:
            said += child.lines()
            yield
        said += child.lines()
        if exitCode is None:
            raise DependencyError(_notUsable(program, _("no answer in {s:.0f} s").format(s=seconds)))
        answer = json.loads(said[-1])  # an environment may print something of its own first
        return {"python": tuple(answer["python"]), "packages": dict(answer["packages"])}
    except (ValueError, LookupError, TypeError) as error:
        words = child.lastWords or "\n".join(said)
        reason = words.splitlines()[-1] if words else _("no answer")
        raise DependencyError(_notUsable(program, reason), words) from error
    finally:
        child.end()


def _notUsable(program: str, reason: str) -> str:
    text = _("The Python {program} cannot be used ({reason}). {remedy}")
    return text.format(program=program, reason=reason, remedy=chooseAnother())
