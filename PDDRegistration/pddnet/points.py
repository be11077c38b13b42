"""Points and vectors as tensors: what `geometry.py` says about frames, applied with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pddnet.geometry import Frame, ImageGeometry, Matrix

SLAB_POINTS = 1 << 18  # what so many points need stays near the cores' caches


def plane_slabs(shape: tuple[int, int, int], max_points: int = SLAB_POINTS) -> Iterator[slice]:
    """The planes of a grid (D, H, W) in slabs of about `max_points`."""
    depth, height, width = shape
    step = max(1, max_points // max(1, height * width))
    for start in range(0, depth, step):
        yield slice(start, min(depth, start + step))


def transform_points_torch(matrix: Matrix, points: torch.Tensor) -> torch.Tensor:
    """`geometry.transform_points` on a tensor (..., 3), in its own precision and on its own device."""
    m = torch.as_tensor(matrix, dtype=points.dtype, device=points.device)
    return points @ m[:3, :3].T + m[:3, 3]


def transform_vectors_torch(matrix: Matrix, vectors: torch.Tensor) -> torch.Tensor:
    """`geometry.transform_vectors` on a tensor (..., 3), in its own precision and on its own device."""
    m = torch.as_tensor(matrix, dtype=vectors.dtype, device=vectors.device)
    return vectors @ m[:3, :3].T


def slabs(geometry: ImageGeometry, max_points: int = 1 << 20) -> Iterator[tuple[slice, torch.Tensor]]:
    """Walk over a grid in slabs along z: (slice of D, points (d, H, W, 3) in mm LPS, float64)."""
    matrix = geometry.matrix(Frame.INDEX, Frame.LPS)
    plane = [torch.arange(n, dtype=torch.float64) for n in geometry.shape[1:]]
    for rows in plane_slabs(geometry.shape, max_points):
        deep = torch.arange(rows.start, rows.stop, dtype=torch.float64)
        k, j, i = torch.meshgrid(deep, *plane, indexing="ij")
        yield rows, transform_points_torch(matrix, torch.stack((i, j, k), -1))
