"""Masks on the grid of their scan, from whatever node the user has: volume, label map or segmentation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pddnet.geometry import ImageGeometry, lps_to_ras
from pddnet.job import ImageFile

from .array_steps import writeArray
from .mrml_geometry import frameOf, geometryOfVolume, ijkToRas, transformBetween, voxelsOf
from .mrml_segmentations import Grid, layersOf

_POINTS_AT_ONCE = 10_000  # some milliseconds


def exportMask(node: Any, folder: Path, name: str, scan: Any) -> Generator[None, None, ImageFile]:
    """Where a volume is not 0, or where a segmentation has any segment, as 1 on the grid of `scan`, nearest neighbour.

    Returns:
        Unsigned bytes with the geometry that `exportVolume` gives the scan.

    Raises:
        InputError: there is nothing in the node.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        grids = (yield from layersOf(node)).grids
    else:
        grids = [(voxelsOf(node.GetImageData(), node.GetName()), ijkToRas(node))]
    geometry = geometryOfVolume(scan)
    toNode = transformBetween(frameOf(scan)[0], node.GetParentTransformNode())
    path = folder / f"{name}.npy"
    yield from writeArray(path, geometry.shape, np.dtype(np.uint8), _covered(geometry, toNode, grids))
    return ImageFile(path.name, geometry)


def _covered(
    geometry: ImageGeometry, toNode: Callable[[np.ndarray], np.ndarray], grids: list[Grid]
) -> Iterator[np.ndarray]:
    """Which voxels of a grid, in its order, lie in something; `toNode` takes LPS points to the node's frame."""
    count = int(np.prod(geometry.shape))
    inverses = [(voxels, np.linalg.inv(matrix)) for voxels, matrix in grids]
    for start in range(0, count, _POINTS_AT_ONCE):
        flat = np.arange(start, min(start + _POINTS_AT_ONCE, count))
        points = geometry.to_lps(np.stack(np.unravel_index(flat, geometry.shape)[::-1], axis=-1))
        pointsRas = lps_to_ras(toNode(points))
        covered = np.zeros(len(flat), dtype=bool)
        for voxels, toIndex in inverses:
            covered |= _nearest(voxels, pointsRas @ toIndex[:3, :3].T + toIndex[:3, 3]) != 0
        yield covered


def _nearest(voxels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The voxels (D, H, W) nearest to continuous indices (N, 3), 0 outside."""
    nearest = np.floor(index + 0.5).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < voxels.shape[::-1])).all(axis=1)
    values = np.zeros(len(index), voxels.dtype)
    i, j, k = nearest[inside].T
    values[inside] = voxels[k, j, i]
    return values
