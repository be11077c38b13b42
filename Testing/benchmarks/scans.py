"""Scans of other sizes made from a pair of scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk
import torch
import torch.nn.functional as F

from pddnet.benchmarks.registering import PairFiles
from pddnet.geometry import ImageGeometry
from pddnet.interop.simpleitk import read_label_map, read_volume, write_label_map, write_volume
from pddnet.volume import LabelMap, Volume

Size = tuple[int, int, int]


def shrunken_pair(files: PairFiles, folder: Path, part: int) -> tuple[PairFiles, int]:
    """The same pair with a `part`-th of the voxels, which keep their size in mm: smaller patients; and the voxels.

    A preset's working grid has a spacing of its own, so that fewer voxels of a larger size would change little.
    """
    if part == 1:
        return files, _voxels(files.fixed)
    folder.mkdir(parents=True, exist_ok=True)
    small = PairFiles.in_folder(folder)
    for source, target in ((files.fixed, small.fixed), (files.moving, small.moving)):
        scan = read_volume(source)
        size = _divided(scan.geometry.size, part)
        data = resized(scan.data, size)
        write_volume(target, Volume(data, _centred(size, scan.geometry.spacing)))
    for source, target in (
        (files.fixed_labels, small.fixed_labels),
        (files.moving_labels, small.moving_labels),
    ):
        labels = read_label_map(source)
        size = _divided(labels.geometry.size, part)
        data = resized(labels.data.float(), size, "nearest-exact").to(torch.int32)
        write_label_map(target, LabelMap(data, _centred(size, labels.geometry.spacing)))
    return small, _voxels(small.fixed)


def refined_scan(source: Path, target: Path, size: Size) -> None:
    """The same scan over the same field of view with `size` voxels (x, y, z), as scanners store it: int16."""
    scan = read_volume(source)
    grid = scan.geometry
    spacing = [s * n / m for s, n, m in zip(grid.spacing, grid.size, size, strict=True)]
    voxels = resized(scan.data, size).round_().to(torch.int16).numpy()
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    image.SetOrigin([o + (n - s) / 2 for o, n, s in zip(grid.origin, spacing, grid.spacing, strict=True)])
    sitk.WriteImage(image, str(target), useCompression=True, compressionLevel=1)


def resized(data: torch.Tensor, size: Size, mode: str = "trilinear") -> torch.Tensor:
    """A volume (D, H, W) with `size` voxels (x, y, z) over the same field of view."""
    shape = (size[2], size[1], size[0])
    return F.interpolate(data[None, None], shape, mode=mode)[0, 0]


def _divided(size: Size, part: int) -> Size:
    factor = part ** (-1 / 3)
    return round(size[0] * factor), round(size[1] * factor), round(size[2] * factor)


def _centred(size: Size, spacing: tuple[float, float, float]) -> ImageGeometry:
    grid = ImageGeometry(size, spacing)
    x, y, z = -grid.centre
    return replace(grid, origin=(float(x), float(y), float(z)))


def _voxels(scan: Path) -> int:
    x, y, z = read_volume(scan).geometry.size
    return x * y * z
