"""What the worker needs beside Python's own library, and which of it is not installed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from .installed_versions import installedVersions
from .python_environment import BACKEND
from .settings import RegistrationError

REQUIREMENTS = BACKEND / "Resources" / "requirements.txt"
_NUMPY_2_NEEDS = "2.3"  # PyTorch's version; an older one cannot exchange arrays with numpy 2


class DependencyError(RegistrationError):
    """Something the worker needs is missing; the message says how to get it."""

    def __init__(self, message: str, details: str = ""):
        super().__init__("missing", message, details)


@dataclass(frozen=True)
class Requirement:
    """A package and the oldest version that will do, "" for any."""

    name: str
    oldest: str = ""

    def __str__(self) -> str:
        return f"{self.name}>={self.oldest}" if self.oldest else self.name

    def metBy(self, version: str | None) -> bool:
        """Whether an installed version, None for none, will do; an unknown one ("") will."""
        return version is not None and (not version or _numbers(version) >= _numbers(self.oldest))


def requirementsIn(path: Path = REQUIREMENTS) -> tuple[Requirement, ...]:
    """The requirements of a file with a `name` or `name>=version` on each line.

    Raises:
        ValueError: a line is of another form.
    """
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"([\w.-]+)(?:>=([\d.]+))?", text)
        if not match:
            raise ValueError(f"{path.name} says '{text}'; a line is 'name' or 'name>=version'")
        found.append(Requirement(match[1], match[2] or ""))
    return tuple(found)


def missing(
    versions: Mapping[str, str | None] | None = None, path: Path = REQUIREMENTS
) -> tuple[Requirement, ...]:
    """The requirements that are not met by the packages installed, by default in this Python."""
    requirements = requirementsIn(path)
    have = installedVersions([r.name for r in requirements]) if versions is None else versions
    return tuple(r for r in _withNumpy(requirements, have.get("numpy")) if not r.metBy(have.get(r.name)))


def listed(requirements: Sequence[Requirement]) -> str:
    return ", ".join(map(str, requirements))


def chooseAnother() -> str:
    return _(
        "Choose the Python program of an environment that has PyTorch under Advanced, Python environment."
    )


def _withNumpy(requirements: Sequence[Requirement], numpy: str | None) -> list[Requirement]:
    """The requirements where numpy is there in this version."""
    if not numpy or _numbers(numpy) < (2,):
        return list(requirements)
    newer = Requirement("torch", _NUMPY_2_NEEDS)
    return [
        newer if r.name == "torch" and _numbers(r.oldest) < _numbers(_NUMPY_2_NEEDS) else r
        for r in requirements
    ]


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version: (2, 6, 0) of "2.6.0+cu124"."""
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)
