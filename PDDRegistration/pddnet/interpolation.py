"""Features at points of the image cube: anywhere, or on product grids by a matrix along each axis.

Coordinates are normalised, (-1, 1) from the centre of the first to the centre of the last voxel (Frame.CUBE), and
points are (x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def resampled(features: torch.Tensor, axes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features (C, D, H, W) on the product grid of (z, y, x) axes, normalised: (C, P, Q, R)."""
    z, y, x = (
        interpolation_matrix(positions, size).to(features)
        for positions, size in zip(axes, features.shape[1:], strict=True)
    )
    planes = y @ (features @ x.T)  # (C, D, Q, R)
    return (z @ planes.flatten(2)).view(len(features), -1, *planes.shape[2:])


def sample_at(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Features (1, C, D, H, W) at normalised points (P, Q, R, 3), border value held outside: (C, P, Q, R)."""
    return F.grid_sample(features, points[None], padding_mode="border", align_corners=True)[0]


def lattice_axes(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """The (z, y, x) axes of positions (P, Q, R, 3) that form a product grid, None where they do not."""
    z, y, x = positions[:, 0, 0, 2], positions[0, :, 0, 1], positions[0, 0, :, 0]
    depth, height, width = torch.meshgrid(z, y, x, indexing="ij")
    return (z, y, x) if torch.equal(torch.stack((width, height, depth), -1), positions) else None


def lattice_weights(
    axes: Sequence[torch.Tensor], offsets: Sequence[torch.Tensor], shape: Sequence[int]
) -> list[torch.Tensor]:
    """Linear interpolation of a volume (D, H, W) at every position plus offset, one matrix per axis.

    Args:
        axes, offsets: positions and offsets along (z, y, x), normalised.

    Returns:
        (Kd, Ld, D), (Kh, Lh, H), (Kw, Lw, W).
    """
    return [
        interpolation_matrix((axis[:, None] + offset).flatten(), size).view(len(axis), len(offset), size)
        for axis, offset, size in zip(axes, offsets, shape, strict=True)
    ]


def interpolation_matrix(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Linear interpolation along one axis as a matrix (len(positions), size).

    Row p gives the weights of the `size` samples for the normalised position p, the border value
    held outside.
    """
    index = ((positions + 1) * 0.5 * (size - 1)).clamp(0, size - 1)
    low = index.floor().clamp(max=max(size - 2, 0))
    fraction = (index - low)[:, None]
    column = torch.arange(size, device=positions.device)
    is_low = column == low.long()[:, None]
    is_high = column == low.long()[:, None] + 1
    return is_low * (1 - fraction) + is_high * fraction
