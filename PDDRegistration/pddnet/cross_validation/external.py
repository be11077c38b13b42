"""Other programs as contenders: the same scans, the same scoring, results kept until the program changes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pddnet
from pddnet.baselines.external.all_methods import external_methods
from pddnet.baselines.external.packages import installed_packages
from pddnet.baselines.external.program import ExternalMethod, Files, Peers
from pddnet.config import Intensity
from pddnet.cross_validation.methods import Found, Hooks
from pddnet.cross_validation.pairs import Split
from pddnet.job_files import sha256
from pddnet.preprocessing import Scaling, resolved
from pddnet.volume import Volume


@dataclass(frozen=True)
class ExternalContender:
    """A program of others, where it is installed."""

    method: ExternalMethod
    training: bool = False

    @property
    def name(self) -> str:
        """On the command line."""
        return self.method.name

    @property
    def title(self) -> str:
        """In the tables."""
        return self.method.title

    def absent(self) -> str | None:
        """Why it cannot run here."""
        return self.method.absent()

    def for_fold(self, fold: Split, hooks: Hooks) -> ReadyProgram:
        """The same for every fold."""
        del fold
        peers = replace(self.method.peers, cancelled=hooks.cancelled)
        (method,) = (method for method in external_methods(peers) if method.name == self.name)
        return ReadyProgram(method, _identity(method))


@dataclass(frozen=True)
class ReadyProgram:
    """A program that may be ended; `identity` has its commands and the hashes of its files."""

    method: ExternalMethod
    identity: Mapping[str, Any]
    training_seconds: float | None = None

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> Found:
        """Run it; one that compares intensities gets them cut to the window of tissue, as our own methods do."""
        if self.method.by_intensity:
            intensity = resolved(Intensity(), fixed, moving)
            fixed, moving = (
                Volume(Scaling.of(scan, intensity).apply(scan.data), scan.geometry)
                for scan in (fixed, moving)
            )
        run = self.method.register(fixed, moving, folder)
        return Found(run.transform, run.seconds, run.peak_mb)


def external_contenders(peers: Peers | None = None) -> tuple[ExternalContender, ...]:
    """All of them, the absent ones too; where they are is told by the environment unless it is given."""
    return tuple(ExternalContender(method) for method in external_methods(peers))


def _identity(method: ExternalMethod) -> Mapping[str, Any]:
    """What the results depend on: commands and settings, the files they run and read, versions of packages."""
    with tempfile.TemporaryDirectory(prefix="pddnet-benchmark-") as place:
        folder = Path(place)
        commands = method.commands(Files(folder / "fixed.nii.gz", folder / "moving.nii.gz", folder))
        written = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        words = [[str(word).replace(place, "FOLDER") for word in command] for command in commands]
    packaged = any(command[0] == method.peers.python for command in words)
    return {
        "pddnet": pddnet.__version__,
        "commands": words,
        "settings": written,
        "programs": _hashes([command[0] for command in words]),
        "packages": installed_packages(method.peers.python) if packaged else {},
    }


def _hashes(programs: Sequence[str]) -> dict[str, str]:
    paths = {program: shutil.which(program) for program in programs}
    return {program: sha256(Path(path)) for program, path in paths.items() if path is not None}
