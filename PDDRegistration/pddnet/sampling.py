"""Building blocks that PyTorch runs on one core where it could use all: trilinear sampling, dilation, block means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F


def grid_sample(
    values: torch.Tensor,
    cube: torch.Tensor,
    *,
    padding_mode: Literal["border", "zeros"] = "border",
    align_corners: bool = True,
) -> torch.Tensor:
    """`torch.nn.functional.grid_sample` of one volume, trilinear, on all cores.

    PyTorch shares the work on a CPU among the members of a batch only; so the planes of the grid become a batch.

    Args:
        values: (C, D, H, W).
        cube: (d, h, w, 3), normalised (x, y, z).

    Returns:
        (C, d, h, w), the same numbers as without the batch.
    """
    parts = _parts(cube.shape[0]) if values.device.type == "cpu" else 1
    samples = F.grid_sample(
        values.expand(parts, *values.shape),
        cube.reshape(parts, -1, *cube.shape[1:]),
        mode="bilinear",
        padding_mode=padding_mode,
        align_corners=align_corners,
    )  # (parts, C, d / parts, h, w)
    return samples[0] if parts == 1 else samples.transpose(0, 1).flatten(1, 2)


def dilated(mask: torch.Tensor) -> torch.Tensor:
    """Largest value among the 3^3 neighbours over the last three axes: `max_pool3d(mask, 3, 1, 1)`, much faster."""
    for axis in (-1, -2, -3):
        n, source, mask = mask.shape[axis], mask, mask.clone()
        for to, other in ((1, 0), (0, 1)):
            part = mask.narrow(axis, to, n - 1)
            torch.maximum(part, source.narrow(axis, other, n - 1), out=part)
    return mask


def block_mean(values: torch.Tensor, block: int | Sequence[int]) -> torch.Tensor:
    """Mean over whole blocks of the last three axes, as `avg_pool3d(values, block)`; what is left over is dropped.

    Args:
        values: (..., D, H, W).
        block: voxels along (D, H, W), or one number.
    """
    blocks = (block,) * 3 if isinstance(block, int) else tuple(block)
    for axis, size in zip((-3, -2, -1), blocks, strict=True):
        if size > 1:
            count = values.shape[axis] // size
            total = _every(values, axis, 0, size, count)
            for start in range(1, size):
                total = total + _every(values, axis, start, size, count)
            values = total * (1 / size)
    return values


def _every(values: torch.Tensor, axis: int, start: int, step: int, count: int) -> torch.Tensor:
    index = [slice(None)] * values.ndim
    index[axis] = slice(start, start + (count - 1) * step + 1, step)
    return values[tuple(index)]


def _parts(planes: int) -> int:
    """Into how many equal batches `planes` go: those that keep every core busy for the shortest time."""
    threads = torch.get_num_threads()
    fitting = [n for n in range(1, planes + 1) if planes % n == 0]
    return min(fitting, key=lambda n: (-(-n // threads) / n, n))
