"""Volumes and transforms in numbers, written once more and without the module's own code, to check it."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk


def voxelsOf(volume: Any) -> np.ndarray:
    """(k, j, i)."""
    return slicer.util.arrayFromVolume(volume)


def ijkToRas(volume: Any) -> np.ndarray:
    """Voxel indices (i, j, k, 1) to RAS mm in the volume's own frame, 4x4."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def interiorPoints(volume: Any, count: int) -> np.ndarray:
    """Random voxel centres away from the border, (count, 3), RAS mm."""
    size = np.array(voxelsOf(volume).shape[::-1])
    indices = np.random.default_rng(7).integers(size // 6, size - size // 6, (count, 3))
    return _applied(ijkToRas(volume), indices.astype(float))


def displaced(transform: Any, points: np.ndarray) -> np.ndarray:
    """Points (N, 3), RAS, through a transform node, from parent."""
    general = transform.GetTransformFromParent()
    return np.array([general.TransformPoint(point) for point in points.tolist()])


def sampled(volume: Any, points: np.ndarray, voxels: np.ndarray | None = None) -> np.ndarray:
    """Values (N,) of a volume, or of other voxels on its grid, at points (N, 3), RAS; linear, NaN outside."""
    voxels = voxelsOf(volume) if voxels is None else voxels
    indices = _applied(np.linalg.inv(ijkToRas(volume)), points)
    last = np.array(voxels.shape[::-1]) - 1
    inside = ((indices >= 0) & (indices <= last)).all(axis=1)
    low = np.clip(np.floor(indices).astype(int), 0, np.maximum(last - 1, 0))
    part = indices - low
    values = np.zeros(len(points))
    for corner in np.ndindex(2, 2, 2):
        i, j, k = np.minimum(low + corner, last).T
        values += np.where(corner, part, 1 - part).prod(axis=1) * voxels[k, j, i]
    return np.where(inside, values, np.nan)


def _applied(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]
