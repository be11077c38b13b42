"""deedsBCV: dense displacement sampling with self-similarity context, after an affine registration of its own.

Its programs count in voxels and ignore where these lie. They were made for cubic voxels and some two hundred of them
along each axis: with forty, linearBCV fits an affine map to eight points and throws the image out of sight. Small and
anisotropic scans are therefore brought onto a finer grid of cubes first. Source: Heinrich et al., IEEE
TMI 32 (2013); github.com/mattiaspaul/deedsBCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pddnet.baselines.external.child import Command
from pddnet.baselines.external.program import (
    ExternalMethod,
    Files,
    Peers,
    absent_programs,
    field_of_voxels,
    found_program,
)
from pddnet.geometry import ImageGeometry
from pddnet.interop.simpleitk import read_volume, write_volume
from pddnet.volume import Volume
from pddnet.warp import DisplacementField

_CUBIC = 1.05  # longest edge of a voxel to the shortest
_LEAST_VOXELS = 96  # along the shortest axis
_MOST_VOXELS = 8e6  # of a grid of our choice
_PROGRAMS = ("linearBCV", "deedsBCV", "applyBCVfloat")


@dataclass(frozen=True)
class DeedsLevels:
    """The levels of the deformable part, coarse to fine, voxels.

    Args:
        spacing: of the control points.
        radius: of the search, in steps.
        step: of the search.
    """

    spacing: tuple[int, ...]
    radius: tuple[int, ...]
    step: tuple[int, ...]

    def options(self) -> list[str]:
        """As deedsBCV takes them."""
        sizes = {"-G": self.spacing, "-L": self.radius, "-Q": self.step}
        words = [word for option, values in sizes.items() for word in (option, "x".join(map(str, values)))]
        return ["-l", str(len(self.step)), *words]


DEFAULT_LEVELS = DeedsLevels((8, 7, 6, 5, 4), (8, 7, 6, 5, 4), (5, 4, 3, 2, 1))
THREE_LEVELS = DeedsLevels((8, 6, 4), (8, 6, 4), (5, 3, 1))  # every other one of the default's
ONE_LEVEL = DeedsLevels((8,), (8,), (5,))  # the default's first


def cubes_over(grid: ImageGeometry, edge_mm: float) -> ImageGeometry:
    """Cubic voxels along the axes of a grid over its field of view, centred on it."""
    x, y, z = (max(1, round(float(extent) / edge_mm)) for extent in grid.extent)
    there = replace(grid, size=(x, y, z), spacing=(edge_mm,) * 3)
    corner = np.asarray(there.origin) + grid.centre - there.centre
    return replace(there, origin=(float(corner[0]), float(corner[1]), float(corner[2])))


class Deeds(ExternalMethod):
    """linearBCV, then deedsBCV with one, three or (its default) five levels; descriptors, so raw intensities."""

    by_intensity = False
    one_grid = True

    def __init__(self, peers: Peers, levels: DeedsLevels = DEFAULT_LEVELS) -> None:
        super().__init__(peers)
        self.levels = levels
        count = len(levels.step)
        self.name = f"deeds-{count}"
        self.title = f"deeds+SSC, {count} level{'s' if count > 1 else ''}"

    def absent(self) -> str | None:
        """See `Method.absent`."""
        return absent_programs(_PROGRAMS, self.peers.deeds, "deedsBCV", "deeds")

    def commands(self, files: Files) -> Sequence[Command]:
        """See `ExternalMethod.commands`."""
        images: Command = ["-F", files.fixed, "-M", files.moving]
        start: Command = ["-A", files.at("affine_matrix.txt")]
        return [
            [self._program("linearBCV"), *images, "-O", files.at("affine")],
            [
                self._program("deedsBCV"),
                *images,
                "-O",
                files.at("deeds"),
                *start,
                *self.levels.options(),
            ],
        ]

    def working_grid(self, fixed: ImageGeometry) -> ImageGeometry:
        """The fixed grid if its voxels are cubes and enough of them; else cubes over its field of view."""
        longest, shortest = max(fixed.spacing), min(fixed.spacing)
        if longest <= _CUBIC * shortest and min(fixed.size) >= _LEAST_VOXELS:
            return fixed
        enough = float(fixed.extent.min()) / _LEAST_VOXELS
        affordable = float(fixed.extent.prod() / _MOST_VOXELS) ** (1 / 3)
        edge = max(min(shortest, enough), affordable)
        return cubes_over(fixed, edge)

    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        """Read off by warping the coordinates themselves; where it leaves the moving grid, to the grid's border."""
        lines = [torch.arange(float(n)) for n in grid.shape]
        index = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1])  # (3, D, H, W) as x, y, z
        found: Command = ["-O", files.at("deeds"), "-A", files.at("affine_matrix.txt")]
        warped = []
        for axis, ramp in enumerate(index):
            before, after = files.at(f"ramp-{axis}.nii.gz"), files.at(f"warped-{axis}.nii.gz")
            write_volume(before, Volume(ramp, grid))
            self.run([self._program("applyBCVfloat"), "-M", before, *found, "-D", after], files)
            warped.append(read_volume(after).data)
        return field_of_voxels((torch.stack(warped) - index).permute(1, 2, 3, 0), grid)  # (D, H, W, 3)

    def _program(self, name: str) -> str:
        return found_program(name, self.peers.deeds) or name
