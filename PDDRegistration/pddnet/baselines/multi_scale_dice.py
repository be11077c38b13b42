"""Soft Dice of one label seen through Gaussian filters of several widths, as Label-Reg is trained with it.

Source: Hu et al., Medical Image Analysis 49 (2018), section on the multi-scale Dice; widths as there, in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SCALES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_TAIL = 3  # standard deviations
_SMOOTHING = 1e-6


def multi_scale_dice(a: torch.Tensor, b: torch.Tensor, scales: Sequence[float] = SCALES) -> torch.Tensor:
    """Mean over the scales of the soft Dice of each class.

    Args:
        a, b: (1, N, D, H, W), from 0 to 1.
        scales: standard deviations in voxels; 0 compares the labels as they are.

    Returns:
        (N,), from 0 to 1.
    """
    return torch.stack([soft_dice(gaussian_filtered(a, s), gaussian_filtered(b, s)) for s in scales]).mean(0)


def soft_dice(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """2 sum(a b) / (sum a + sum b) of each channel of (1, N, D, H, W): (N,)."""
    a, b = a[0].flatten(1), b[0].flatten(1)
    return 2 * (a * b).sum(1) / (a.sum(1) + b.sum(1) + _SMOOTHING)


def gaussian_filtered(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """(..., D, H, W) filtered by a Gaussian of `sigma` voxels, cut at 3 sigma, 0 outside; a matrix along each axis."""
    if sigma == 0:
        return values
    depth, height, width = (_gaussian_matrix(n, sigma, values) for n in values.shape[-3:])
    rows = height @ (values @ width)  # the matrices are symmetric
    return torch.einsum("kd,...dhw->...khw", depth, rows)


def _gaussian_matrix(size: int, sigma: float, like: torch.Tensor) -> torch.Tensor:
    """Row i holds the weights of a line's voxels for voxel i, (size, size)."""
    index = torch.arange(size, dtype=like.dtype, device=like.device)
    distance = index[:, None] - index
    tail = int(_TAIL * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-tail, tail + 1, dtype=like.dtype) / sigma).square())
    weights = torch.exp(-0.5 * (distance / sigma).square()) / float(kernel.sum())
    return weights * (distance.abs() <= tail)
