"""What all adapters share: scans become files, programs run, a displacement field on the fixed grid comes back.

Before a program starts, the moving scan's header is shifted so that the centres of both fields of view coincide, as the
trained methods are fed; where both scans lie on one grid nothing changes. The shift is part of the transform that comes
back.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pddnet.baselines.external.child import ChildCost, Command, run_program
from pddnet.baselines.method import MethodRun
from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry, Matrix
from pddnet.interop.simpleitk import read_transform, write_volume
from pddnet.points import transform_vectors_torch
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, DisplacementField, resample


@dataclass(frozen=True)
class Peers:
    """Where the other programs are, and how they run.

    Args:
        python: an interpreter that has Python packages of peers; without one they are absent.
        deeds, niftyreg, elastix: folders with the programs; PATH where none is named.
        threads: how many a program may use.
        cancelled: asked while a program runs; it is ended where the answer is yes.

    Raises:
        InputError: no thread.
    """

    python: str = ""
    deeds: str = ""
    niftyreg: str = ""
    elastix: str = ""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    cancelled: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        for name in ("deeds", "niftyreg", "elastix"):  # programs run in folders of their own
            if folder := getattr(self, name):
                object.__setattr__(self, name, os.path.abspath(folder))
        if os.sep in self.python:
            object.__setattr__(self, "python", os.path.abspath(self.python))
        if self.threads < 1:
            raise InputError(f"threads is {self.threads}; at least 1 is needed")

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Peers:
        """As $PDDNET_PEERS_PYTHON, $PDDNET_PEERS_DEEDS, $PDDNET_PEERS_NIFTYREG and $PDDNET_PEERS_ELASTIX say."""
        python, deeds, niftyreg, elastix = (
            environment.get(variable_of(place), "") for place in ("python", "deeds", "niftyreg", "elastix")
        )
        return cls(python, deeds, niftyreg, elastix)


def variable_of(place: str) -> str:
    """The environment variable that names a place of `Peers`."""
    return f"PDDNET_PEERS_{place.upper()}"


@dataclass(frozen=True)
class Files:
    """A pair on the disk: both scans, and the folder to work in."""

    fixed: Path
    moving: Path
    folder: Path

    def at(self, name: str) -> Path:
        """A file of the folder."""
        return self.folder / name


class ExternalMethod(ABC):
    """A `Method` that runs programs; a subclass says which and reads what they leave.

    Args:
        peers: where they are.

    Attributes:
        name: see `Method`.
        title: for tables.
        by_intensity: a caller who knows the window of interest cuts intensities to it; the others take raw scans.
        one_grid: it ignores where voxels lie, so that the moving scan is brought onto the working grid first.
    """

    name: str
    title: str
    by_intensity: bool
    one_grid: bool = False

    def __init__(self, peers: Peers) -> None:
        self.peers = peers

    @abstractmethod
    def absent(self) -> str | None:
        """See `Method.absent`."""

    @abstractmethod
    def commands(self, files: Files) -> Sequence[Command]:
        """What registers, one after the other; timed."""

    @abstractmethod
    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        """What they found, on the working grid `grid`, fixed -> moving, mm LPS; may run programs; not timed."""

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> MethodRun:
        """See `Method.register`.

        Raises:
            InputError: the method is absent, the folder is not an empty one, a scan cannot be a NIfTI file.
            RegistrationCancelled: `Peers.cancelled` said so; the program was ended.
            ProgramFailed: a program failed.
        """
        if reason := self.absent():
            raise InputError(f"{self.name} cannot run: {reason}")
        if not folder.is_dir() or any(folder.iterdir()):
            raise InputError(f"{folder} is no empty folder; {self.name} needs one to work in")
        shift = moving.geometry.centre - fixed.geometry.centre
        grid = self.working_grid(fixed.geometry)
        files = Files(folder / "fixed.nii.gz", folder / "moving.nii.gz", folder)
        write_volume(files.fixed, _on(grid, fixed))
        placed = _moved(moving, -shift)
        write_volume(files.moving, _on(grid, placed) if self.one_grid else placed)
        cost = ChildCost.total([self.run(command, files) for command in self.commands(files)])
        found = replace(self.field(files, grid), fixed_geometry=fixed.geometry)
        vectors = found.vectors + torch.as_tensor(shift, dtype=torch.float32)
        return MethodRun(replace(found, vectors=vectors), cost.seconds, cost.peak_mb)

    def working_grid(self, fixed: ImageGeometry) -> ImageGeometry:
        """The grid that the fixed scan is written on: its own, unless a subclass needs another."""
        return fixed

    def run(self, command: Command, files: Files) -> ChildCost:
        """Run one program in the folder."""
        return run_program(command, files.folder, self.peers.threads, self.peers.cancelled)


def _moved(scan: Volume, shift: Matrix) -> Volume:
    x, y, z = np.asarray(scan.geometry.origin) + shift
    return Volume(scan.data, replace(scan.geometry, origin=(float(x), float(y), float(z))))


def _on(grid: ImageGeometry, scan: Volume) -> Volume:
    """A scan on a grid, untouched where it lies on it already."""
    return scan if scan.geometry.is_close(grid) else resample(scan, grid, AffineTransform.identity())


def field_of_voxels(shift: torch.Tensor, grid: ImageGeometry) -> DisplacementField:
    """Displacements (D, H, W, 3) in voxels (x, y, z) of a grid, as mm LPS on it."""
    to_lps = grid.matrix(Frame.INDEX, Frame.LPS)
    return DisplacementField(transform_vectors_torch(to_lps, shift.double()).float(), grid, grid)


def read_field(path: Path, grid: ImageGeometry) -> DisplacementField:
    """The displacements, mm LPS, in an image that a program wrote on the grid `grid`.

    Raises:
        InputError: no such file, no image of vectors, or another number of voxels: the program did not keep the grid.
    """
    found = read_transform(path)
    if not isinstance(found, DisplacementField) or found.geometry.size != grid.size:
        size = found.geometry.size if isinstance(found, DisplacementField) else type(found).__name__
        raise InputError(
            f"{path} has size {size}; {grid.size} is needed: the program did not keep the fixed grid"
        )
    return DisplacementField(found.vectors, grid, grid)


def absent_programs(names: Sequence[str], folder: str, what: str, place: str) -> str | None:
    """The reason why some of the programs `names` are not to be had, None where all are there."""
    missing = [name for name in names if found_program(name, folder) is None]
    if not missing:
        return None
    where = f"in {folder}" if folder else "on PATH"
    return f"{', '.join(missing)} of {what} is not {where}; install it or name its folder in ${variable_of(place)}"


def found_program(name: str, folder: str) -> str | None:
    """The path of a program in a folder, or on PATH where no folder is named."""
    found = shutil.which(name, path=folder or None)
    return None if found is None else os.path.abspath(found)
