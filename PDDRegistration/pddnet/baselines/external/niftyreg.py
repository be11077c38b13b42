"""NiftyReg: block matching, then free-form deformation by normalised mutual information.

Source: Modat et al., Computer Methods and Programs in Biomedicine 98 (2010); github.com/KCL-BMEIS/niftyreg. NiftyReg
writes vectors in mm, RAS; as their NIfTI files do not call them displacements, ITK hands them out as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pddnet.baselines.external.child import Command
from pddnet.baselines.external.program import (
    ExternalMethod,
    Files,
    Peers,
    absent_programs,
    found_program,
    read_field,
)
from pddnet.geometry import ImageGeometry
from pddnet.warp import DisplacementField

_PROGRAMS = ("reg_aladin", "reg_f3d", "reg_transform")
_RAS_TO_LPS = (-1.0, -1.0, 1.0)


class NiftyReg(ExternalMethod):
    """reg_aladin, then reg_f3d with its defaults (NMI of 64 bins, control points every 5 voxels), five levels each."""

    name = "niftyreg"
    by_intensity = True

    def __init__(self, peers: Peers, levels: int = 5) -> None:
        super().__init__(peers)
        self.levels = levels
        self.title = f"NiftyReg NMI, {levels} levels"

    def absent(self) -> str | None:
        """See `Method.absent`."""
        return absent_programs(_PROGRAMS, self.peers.niftyreg, "NiftyReg", "niftyreg")

    def commands(self, files: Files) -> Sequence[Command]:
        """See `ExternalMethod.commands`."""
        images: Command = ["-ref", files.fixed, "-flo", files.moving]
        common: Command = [*images, "-ln", str(self.levels), "-voff", "-omp", str(self.peers.threads)]
        affine, control = files.at("affine.txt"), files.at("control.nii.gz")
        linear: Command = [
            self._program("reg_aladin"),
            *common,
            "-aff",
            affine,
            "-res",
            files.at("affine.nii.gz"),
        ]
        warp: Command = [self._program("reg_f3d"), *common, "-aff", affine, "-cpp", control]
        return [linear, [*warp, "-res", files.at("warped.nii.gz")]]

    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        """By reg_transform, which adds the affine part."""
        out = files.at("field.nii.gz")
        command: Command = [
            self._program("reg_transform"),
            "-ref",
            files.fixed,
            "-disp",
            files.at("control.nii.gz"),
            out,
        ]
        self.run(command, files)
        found = read_field(out, grid)
        return replace(found, vectors=found.vectors * torch.tensor(_RAS_TO_LPS))

    def _program(self, name: str) -> str:
        return found_program(name, self.peers.niftyreg) or name
