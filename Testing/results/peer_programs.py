"""How each program is run on two files, and how the transform it found is read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from canvas import Pair

from pddnet.interop.simpleitk import read_transform, read_volume, write_volume
from pddnet.volume import Volume
from pddnet.warp import DisplacementField, SpatialTransform

PEERS = {"ants": "ANTs SyN", "greedy": "Greedy", "convexadam": "convexAdam"}
_WINDOWED = (
    "ants",
    "greedy",
)  # by intensities; the others' descriptors take raw ones, as their authors give them
_DEEDS = ("linearBCV", "deedsBCV", "applyBCVfloat")
_TOOLS = Path(__file__).with_name("peer_tools.py")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


@dataclass(frozen=True)
class Files:
    """A pair on the disk and a folder to work in."""

    fixed: Path
    moving: Path
    folder: Path

    @classmethod
    def of(cls, pair: Pair, folder: Path, windowed: bool) -> Files:
        """Write both scans, their intensities as scanned or cut to the window."""
        files = cls(folder / "fixed.nii.gz", folder / "moving.nii.gz", folder)
        for path, subject in ((files.fixed, pair.fixed), (files.moving, pair.moving)):
            data = subject.scan.data.clamp(*subject.window) if windowed else subject.scan.data
            write_volume(path, Volume(data, subject.scan.geometry))
        return files


@dataclass(frozen=True)
class Program:
    """A program: `run` is timed and leaves files, `read` makes a transform (fixed -> moving, mm LPS) of them.

    Both are None where the program is absent.
    """

    name: str
    run: Callable[[Files], None] | None = None
    read: Callable[[Files], SpatialTransform] | None = None
    windowed: bool = False


def all_programs(presets: Sequence[str], python: str, deeds: str, threads: int) -> list[Program]:
    """The peers, then our presets."""
    found = _installed(python) if python else {}
    packages = [_package(python, tool, threads) if tool in found else Program(PEERS[tool]) for tool in PEERS]
    paths = {name: shutil.which(name, path=deeds or None) for name in _DEEDS}
    there = {name: path for name, path in paths.items() if path}
    last = _deeds(there, threads) if len(there) == len(_DEEDS) else Program("deeds")
    return [last, *packages, *(_pddnet(preset, threads) for preset in presets)]


def _installed(python: str) -> dict[str, str]:
    answer = subprocess.run([python, str(_TOOLS), "versions"], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(answer.stdout)
    return versions


def _pddnet(preset: str, threads: int) -> Program:
    def run(files: Files) -> None:
        scans = ["--fixed", files.fixed, "--moving", files.moving]
        command = [sys.executable, "-m", "pddnet", "register", *scans, "--preset", preset]
        _call([*command, "--out", files.folder / "result"], threads)

    return Program(
        f"pddnet {preset}", run, lambda files: read_transform(files.folder / "result" / "transform.h5")
    )


def _package(python: str, tool: str, threads: int) -> Program:
    def run(files: Files) -> None:
        _call([python, _TOOLS, tool, files.fixed, files.moving, files.folder / "field.nii.gz"], threads)

    def read(files: Files) -> SpatialTransform:
        grid = read_volume(files.fixed).geometry
        image = sitk.ReadImage(str(files.folder / "field.nii.gz"))
        vectors = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32))
        return DisplacementField(vectors.reshape(*grid.shape, 3), grid, grid)

    return Program(PEERS[tool], run, read, tool in _WINDOWED)


def _deeds(programs: Mapping[str, str], threads: int) -> Program:
    """Affine, then deformable, with the defaults; the field is read off by warping the coordinates themselves."""

    def run(files: Files) -> None:
        images = ["-F", files.fixed, "-M", files.moving]
        _call([programs["linearBCV"], *images, "-O", files.folder / "affine"], threads)
        start = ["-A", files.folder / "affine_matrix.txt"]
        _call([programs["deedsBCV"], *images, "-O", files.folder / "deeds", *start], threads)

    def read(files: Files) -> SpatialTransform:
        grid = read_volume(files.fixed).geometry
        lines = [torch.arange(float(n)) for n in grid.shape]
        index = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1])  # (3, D, H, W) as x, y, z
        found = ["-O", files.folder / "deeds", "-A", files.folder / "affine_matrix.txt"]
        warped = []
        for axis, ramp in enumerate(index):
            before, after = (files.folder / f"{name}-{axis}.nii.gz" for name in ("ramp", "warped"))
            write_volume(before, Volume(ramp, grid))
            _call([programs["applyBCVfloat"], "-M", before, *found, "-D", after], threads)
            warped.append(read_volume(after).data)
        shift = (torch.stack(warped) - index).permute(1, 2, 3, 0)  # (D, H, W, 3), voxels
        return DisplacementField(shift * torch.tensor(grid.spacing), grid, grid)

    return Program("deeds", run, read)


def _call(command: Sequence[str | Path], threads: int) -> None:
    counts = dict.fromkeys(_THREADS, str(threads))
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        **counts,
    }  # nobody's threads spin while they wait
    done = subprocess.run(
        [str(c) for c in command], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{said}")
