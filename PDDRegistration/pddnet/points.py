"""Points and vectors as tensors: what `geometry.py` says about frames, applied with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pddnet.geometry import Frame, ImageGeometry, Matrix


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
    depth, height, width = geometry.shape
    step = max(1, max_points // (height * width))
    matrix = geometry.matrix(Frame.INDEX, Frame.LPS)
    plane = [torch.arange(n, dtype=torch.float64) for n in (height, width)]
    for start in range(0, depth, step):
        stop = min(depth, start + step)
        k, j, i = torch.meshgrid(torch.arange(start, stop, dtype=torch.float64), *plane, indexing="ij")
        yield slice(start, stop), transform_points_torch(matrix, torch.stack((i, j, k), -1))
