"""Values of arrays at continuous indices, one point or many: linear, nearest, and whether there is a value at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pddnet.sampling import grid_sample

_POINTS_IN_A_ROW = 1 << 10


def sample_linear(channels: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Trilinear samples in float64, the border value held outside.

    Args:
        channels: (C, D, H, W).
        index: (..., 3), float64, continuous (i, j, k).

    Returns:
        (..., C), float64.
    """
    size = torch.tensor(channels.shape[:0:-1], dtype=torch.float64)  # (W, H, D)
    flat = torch.minimum(index.reshape(-1, 3).clamp(min=0.0), size - 1)
    low = flat.amin(0).floor()
    high = torch.minimum(flat.amax(0).floor() + 1, size - 1)
    low = torch.minimum(low, (high - 1).clamp(min=0))
    (i0, j0, k0), (i1, j1, k1) = low.int().tolist(), high.int().tolist()
    window = channels[:, k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1].double()  # only what these points can see
    cube = 2 * (flat - low) / (high - low).clamp(min=1) - 1
    values = F.grid_sample(
        window[None], cube.view(1, 1, 1, -1, 3), mode="bilinear", padding_mode="border", align_corners=True
    )
    return values.view(channels.shape[0], -1).T.reshape(*index.shape[:-1], channels.shape[0])


def sample_points(channels: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Trilinear samples (C, N) in float32 of (C, D, H, W) at continuous indices (3, N), the border held outside."""
    size = torch.tensor(channels.shape[:0:-1])[:, None]  # W, H, D
    cube = F.pad(index * (2 / (size - 1).clamp(min=1)) - 1, (0, -index.shape[1] % _POINTS_IN_A_ROW))
    found = grid_sample(channels, cube.view(3, -1, 1, _POINTS_IN_A_ROW).movedim(0, -1))
    return found.flatten(1)[:, : index.shape[1]]


def sample_nearest(data: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The value (...,) of the voxel of `data` (D, H, W) nearest to each index (..., 3); halves round up, as in ITK."""
    kind = torch.int32 if data.numel() < 1 << 31 else torch.int64
    i, j, k = (
        (index[..., axis] + 0.5).floor_().clamp_(0, data.shape[2 - axis] - 1).to(kind) for axis in range(3)
    )
    flat = k.mul_(data.shape[1]).add_(j).mul_(data.shape[2]).add_(i)
    return data.reshape(-1).index_select(0, flat.reshape(-1)).view(flat.shape)


def inside(index: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Whether each index (..., 3) lies in the field of view, voxel edges included; `shape` is (D, H, W)."""
    return within(index.movedim(-1, 0), shape)


def within(index: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Whether each index (3, ...) lies in the field of view (D, H, W), voxel edges included."""
    within = (index[0] >= -0.5) & (index[0] < shape[2] - 0.5)
    for at, n in ((index[1], shape[1]), (index[2], shape[0])):
        within &= at >= -0.5
        within &= at < n - 0.5
    return within
