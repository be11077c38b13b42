"""Peers that are Python packages, run by an interpreter that has them: ANTs, Greedy, convexAdam."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from pddnet.baselines.external.child import Command
from pddnet.baselines.external.peer_packages import PACKAGES
from pddnet.baselines.external.program import ExternalMethod, Files, field_of_voxels, read_field, variable_of
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.warp import DisplacementField

SCRIPT = Path(__file__).with_name("peer_packages.py")


class PythonPackage(ExternalMethod):
    """A method of a package; `tool` is what `peer_packages.py` calls it."""

    tool: ClassVar[str]

    def absent(self) -> str | None:
        """See `Method.absent`."""
        return absent_package(self.tool, self.peers.python)

    def commands(self, files: Files) -> Sequence[Command]:
        """See `ExternalMethod.commands`; what the package found is written within the time."""
        return [package_command(self.tool, self.peers.python, files, self.out(files), self.peers.threads)]

    def out(self, files: Files) -> Path:
        """What the script writes."""
        return files.at("field.nii.gz")

    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        """The script's field."""
        return read_field(self.out(files), grid)


class AntsSyn(PythonPackage):
    """Symmetric normalisation, antspyx. Source: Avants et al., Medical Image Analysis 12 (2008)."""

    name, title, tool, by_intensity = "ants-syn", "ANTs SyN", "ants", True


class Greedy(PythonPackage):
    """Greedy diffeomorphic registration, picsl-greedy. Source: Yushkevich et al., 2016; greedy.readthedocs.io."""

    name, title, tool, by_intensity = "greedy", "Greedy", "greedy", True


class ConvexAdam(PythonPackage):
    """Coupled convex optimisation and Adam on MIND features; counts in voxels. Source: Siebert et al., L2R 2021."""

    name, title, tool, by_intensity = "convexadam", "convexAdam", "convexadam", False
    one_grid = True

    def out(self, files: Files) -> Path:
        """An array; a field in mm would need the direction of the grid."""
        return files.at("voxels.npy")

    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        """The array's, brought from voxels along D, H, W to mm LPS."""
        voxels = np.load(self.out(files), allow_pickle=False)
        if voxels.shape != (*grid.shape, 3):
            raise InputError(
                f"{self.name} gave displacements of shape {voxels.shape}; {(*grid.shape, 3)} is needed"
            )
        return field_of_voxels(torch.from_numpy(voxels[..., ::-1].copy()), grid)


def package_command(
    tool: str, python: str, files: Files, out: Path, threads: int, more: Sequence[Path] = ()
) -> Command:
    """The command that registers with a package."""
    return [python, SCRIPT, tool, files.fixed, files.moving, out, str(threads), *more]


def absent_package(tool: str, python: str) -> str | None:
    """The reason why a package is not to be had, None where it is."""
    variable = variable_of("python")
    if not python:
        return f"no interpreter for {PACKAGES[tool]} is named; name one in ${variable}"
    try:
        found = installed_packages(python)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"{python} of ${variable} is no working Python interpreter ({error}); name another one"
    return None if tool in found else f"{PACKAGES[tool]} is not installed in {python}; install it there"


@lru_cache(maxsize=8)
def installed_packages(python: str) -> dict[str, str]:
    """The versions of the peers' packages in an interpreter, by tool; asked once."""
    answer = subprocess.run([python, str(SCRIPT), "versions"], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(answer.stdout)
    return versions
