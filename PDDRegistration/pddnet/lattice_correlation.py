"""The dissimilarity volume where control points and displacement labels share a lattice: slicing, no interpolation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F

_TILE = 4  # control points along each axis of a tile
_DIRECT_LABELS = (
    64  # up to this many labels, one pass for each label is faster than matrix products over tiles
)
_BLOCK_ENTRIES = 1 << 24


def lattice_labels(radius: int, like: torch.Tensor) -> torch.Tensor:
    """All shifts of up to `radius` cells, (L, 3) as (x, y, z), z slowest: the order of a dissimilarity's last axis."""
    line = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack((x, y, z), -1).reshape(-1, 3)


def lattice_dissimilarity(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    stride: int,
    radius: int,
    between_blocks: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Sum over channels of (fixed(k) - moving(k + d))^2 for control points k and shifts d.

    Args:
        fixed, moving: (C, D, H, W), features on the same lattice.
        stride: control points are the cells stride // 2 + n * stride along each axis.
        radius: the largest shift, in cells, along each axis.
        between_blocks: called between pieces of work, where a caller may stop.

    Returns:
        (K_d, K_h, K_w, L) with L = (2 radius + 1)^3, shifts ordered as in `lattice_labels`. Beyond the border the
        moving features are replicated.
    """
    start = stride // 2
    points = fixed[:, start::stride, start::stride, start::stride]  # (C, K_d, K_h, K_w)
    padded = F.pad(moving[None], (radius,) * 6, mode="replicate")[0]
    if (2 * radius + 1) ** 3 <= _DIRECT_LABELS:
        return _direct(points, padded, stride, radius, between_blocks)
    return _by_tiles(points, padded, stride, radius, between_blocks)


def _direct(
    points: torch.Tensor,
    padded: torch.Tensor,
    stride: int,
    radius: int,
    between_blocks: Callable[[], None] | None,
) -> torch.Tensor:
    width = 2 * radius + 1
    out = points.new_empty((width**3, *points.shape[1:]))
    starts = [stride // 2 + shift for shift in range(width)]
    for label, corner in enumerate(product(starts, repeat=3)):
        index = tuple(
            slice(c, c + (n - 1) * stride + 1, stride) for c, n in zip(corner, points.shape[1:], strict=True)
        )
        torch.sum((points - padded[(slice(None), *index)]).square_(), 0, out=out[label])
        if between_blocks:
            between_blocks()
    return out.permute(1, 2, 3, 0).contiguous()  # labels become the last axis


def _by_tiles(
    points: torch.Tensor,
    padded: torch.Tensor,
    stride: int,
    radius: int,
    between_blocks: Callable[[], None] | None,
) -> torch.Tensor:
    """|f|^2 + |m|^2 - 2 f.m: one matrix product for each tile of control points with all it can see."""
    channels, shape = points.shape[0], points.shape[1:]
    tiles = [-(-n // _TILE) for n in shape]
    fill = [extra for n, t in zip(shape, tiles, strict=True) for extra in (t * _TILE - n, 0)][::-1]
    width = 2 * radius + 1
    seen = (_TILE - 1) * stride + width  # cells along each axis that a tile's windows cover
    needed = [stride // 2 + (t * _TILE - 1) * stride + width for t in tiles]
    grow = [
        extra for n, have in zip(needed, padded.shape[1:], strict=True) for extra in (max(0, n - have), 0)
    ][::-1]
    points = F.pad(points[None], fill, mode="replicate")[0] if any(fill) else points
    padded = F.pad(padded[None], grow, mode="replicate")[0] if any(grow) else padded
    padded = padded[:, stride // 2 :, stride // 2 :, stride // 2 :]
    fixed_norm, moving_norm = points.square().sum(0), padded.square().sum(0)
    out = points.new_empty((*shape, width, width, width))
    for z, y in product(range(tiles[0]), range(tiles[1])):
        rows = [slice(t * _TILE, (t + 1) * _TILE) for t in (z, y)]
        area = [slice(t * _TILE * stride, t * _TILE * stride + seen) for t in (z, y)]
        f = points[:, rows[0], rows[1]].reshape(channels, _TILE, _TILE, tiles[2], _TILE)  # (C, 4, 4, T, 4)
        m = padded[:, area[0], area[1]].unfold(-1, seen, _TILE * stride)[
            :, :, :, : tiles[2]
        ]  # (C, S, S, T, S)
        f_rows = f.permute(3, 1, 2, 4, 0).reshape(tiles[2], _TILE**3, channels)
        m_columns = m.permute(3, 0, 1, 2, 4).reshape(tiles[2], channels, seen**3)
        norm = moving_norm[area[0], area[1]].unfold(-1, seen, _TILE * stride)[:, :, : tiles[2]]
        norm_row = norm.permute(2, 0, 1, 3).reshape(tiles[2], 1, seen**3)
        cost = torch.baddbmm(norm_row, f_rows, m_columns, alpha=-2)  # (T, 64, S^3)
        part = out[rows[0], rows[1]]  # less than a tile at the far ends
        windows = _windows(cost, stride, width, seen)[: part.shape[0], : part.shape[1]]
        part.copy_(windows.flatten(2, 3)[:, :, : shape[2]])
        if between_blocks:
            between_blocks()
    out += fixed_norm[: shape[0], : shape[1], : shape[2], None, None, None]
    return out.view(*shape, width**3).clamp_(min=0)


def _windows(cost: torch.Tensor, stride: int, width: int, seen: int) -> torch.Tensor:
    """Each control point's own window out of its tile's products: (4, 4, T, 4, width, width, width)."""
    tile, point = cost.stride(0), cost.stride(1)
    cell = (seen * seen, seen, 1)
    a, b, c = (_TILE ** (2 - axis) * point + stride * cell[axis] for axis in range(3))
    size = (_TILE, _TILE, cost.shape[0], _TILE, width, width, width)
    return cost.as_strided(size, (a, b, tile, c, *cell), cost.storage_offset())
