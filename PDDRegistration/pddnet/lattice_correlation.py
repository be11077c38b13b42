"""The dissimilarity volume where control points and displacement labels share a lattice: slicing, no interpolation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from pddnet.all_cores import share_out

Shape = tuple[int, int, int]

_TILE: Shape = (2, 4, 4)  # control points of a tile; each tile is one matrix product
_PRODUCT_ENTRIES = 1 << 18  # of the tiles a thread works on at once: they stay near its core


def lattice_labels(radius: int, like: torch.Tensor) -> torch.Tensor:
    """All shifts of up to `radius` cells, (L, 3) as (x, y, z), z slowest: the order of a dissimilarity's last axis."""
    line = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack((x, y, z), -1).reshape(-1, 3)


def at_control_points(features: torch.Tensor, stride: int) -> torch.Tensor:
    """The cells stride // 2 + n * stride along each axis of features (C, D, H, W)."""
    start = stride // 2
    return features[:, start::stride, start::stride, start::stride]


def lattice_dissimilarity(
    points: torch.Tensor,
    moving: torch.Tensor,
    stride: int,
    radius: int,
    between_blocks: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Sum over channels of (fixed(k) - moving(k + d))^2 for control points k and shifts d.

    |f|^2 + |m|^2 - 2 f.m by one matrix product for each tile of control points with all it can see.

    Args:
        points: (C, K_d, K_h, K_w), the fixed features `at_control_points`.
        moving: (C, D, H, W), the moving features on all cells.
        stride: cells from one control point to the next.
        radius: the largest shift, in cells, along each axis.
        between_blocks: called between pieces of work, where a caller may stop.

    Returns:
        (K_d, K_h, K_w, L) with L = (2 radius + 1)^3, shifts ordered as in `lattice_labels`. Beyond the border the
        moving features are replicated.
    """
    tiles = _Tiles(points, stride, radius)
    width = tiles.width
    out = points.new_empty((*tiles.shape, width, width, width))

    def make_worker(_: int) -> Callable[[int], None]:
        buffers = tiles.buffers()

        def fill(z: int) -> None:
            slab = tiles.slab(moving, z)
            planes = out[z * tiles.size[0] : (z + 1) * tiles.size[0]]
            for y in range(0, tiles.count[1], tiles.rows):
                rows = slice(y * tiles.size[1], (y + tiles.rows) * tiles.size[1])
                _copy(tiles.windows(slab, z, y, buffers), planes[:, rows])

        return fill

    share_out(tiles.count[0], make_worker, points.device, between_blocks)
    return out.view(*tiles.shape, width**3)


class _Tiles:
    """Control points in tiles of `size`, `count` of them along each axis, the last ones filled up with zeros."""

    def __init__(self, points: torch.Tensor, stride: int, radius: int) -> None:
        shape = points.shape[1:]
        self.stride, self.radius, self.width = stride, radius, 2 * radius + 1
        self.shape: Shape = (shape[0], shape[1], shape[2])
        self.size = _TILE
        self.count = [-(-n // t) for n, t in zip(self.shape, self.size, strict=True)]
        self.seen = [(t - 1) * stride + self.width for t in self.size]  # cells a tile's windows cover
        entries = self.count[2] * self.size[0] * self.size[1] * self.size[2] * _product(self.seen)
        self.rows = max(1, min(self.count[1], _PRODUCT_ENTRIES // entries))  # of tiles at once
        self._left = self._with_norm(points)  # (T_d, T_h, T_w, points of a tile, C + 2)

    def buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Memory to work in, for one thread: what the tiles see, and the products with it."""
        right = self._left.new_ones((self.rows, self.count[2], self._left.shape[4], *self.seen))
        shape = (self.rows * self.count[2], self._left.shape[3], _product(self.seen))
        return right, self._left.new_empty(shape)

    def slab(self, moving: torch.Tensor, z: int) -> torch.Tensor:
        """What the tiles of row `z` along the first axis see: (C + 1, seen, H', W'), the last channel |m|^2."""
        before = self.radius - self.stride // 2  # cells the windows begin before the first one
        planes = [
            min(max(z * self.size[0] * self.stride - before + n, 0), moving.shape[1] - 1)
            for n in range(self.seen[0])
        ]
        needed = [
            (count * t - 1) * self.stride + self.width
            for count, t in zip(self.count[1:], self.size[1:], strict=True)
        ]
        rows, columns = (
            [(max(0, -before), max(0, before)), (min(n, size + before) - max(0, before), size)]
            for n, size in zip(needed, moving.shape[2:], strict=True)
        )
        slab = moving.new_empty((len(moving) + 1, len(planes), *needed))
        y, x = (slice(line[0][1], line[0][1] + line[1][0]) for line in (rows, columns))
        from_y, from_x = (slice(line[0][0], line[0][0] + line[1][0]) for line in (rows, columns))
        for n, plane in enumerate(planes):
            slab[:-1, n, y, x] = moving[:, plane, from_y, from_x]
        _replicate(slab[:-1], 2, y)
        _replicate(slab[:-1], 3, x)
        norm = torch.mul(slab[0], slab[0], out=slab[-1])
        for channel in slab[1:-1]:
            norm.addcmul_(channel, channel)
        return slab

    def windows(
        self, slab: torch.Tensor, z: int, y: int, buffers: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Each control point's own window, in the tiles of the rows from (z, y).

        (points, rows, points, columns, points, width, width, width): the points of all tiles along each axis.
        """
        rows, columns, seen = min(self.rows, self.count[1] - y), self.count[2], self.seen
        step = [t * self.stride for t in self.size]
        right, products = buffers[0][:rows], buffers[1][: rows * columns]
        strides = (step[1] * slab.stride(2), step[2], *slab.stride())
        offset = slab.storage_offset() + y * step[1] * slab.stride(2)
        right[:, :, :-1].copy_(slab.as_strided((rows, columns, len(slab), *seen), strides, offset))
        left = self._left[z, y : y + rows].flatten(0, 1)
        torch.bmm(left, right.view(rows * columns, -1, _product(seen)), out=products)
        tile, point = products.stride(0), products.stride(1)
        cell = (seen[1] * seen[2], seen[2], 1)
        a, b, c = (_product(self.size[axis + 1 :]) * point + self.stride * cell[axis] for axis in range(3))
        size = (self.size[0], rows, self.size[1], columns, self.size[2], *(self.width,) * 3)
        return products.as_strided(size, (a, columns * tile, b, tile, c, *cell))

    def _with_norm(self, points: torch.Tensor) -> torch.Tensor:
        fill = [n for axis in (2, 1, 0) for n in (0, self.count[axis] * self.size[axis] - self.shape[axis])]
        norm = points.square().sum(0, keepdim=True)
        left = F.pad(torch.cat((-2 * points, torch.ones_like(norm), norm)), fill)
        blocks = left.view(len(left), *(n for pair in zip(self.count, self.size, strict=True) for n in pair))
        return blocks.permute(1, 3, 5, 2, 4, 6, 0).reshape(*self.count, -1, len(left))


def _replicate(values: torch.Tensor, axis: int, known: slice) -> None:
    """Fill what lies before and after the known part of an axis with its first and last value."""
    size = values.shape[axis]
    for start, stop, source in ((0, known.start, known.start), (known.stop, size, known.stop - 1)):
        if stop > start:
            values.narrow(axis, start, stop - start).copy_(values.narrow(axis, source, 1))


def _copy(windows: torch.Tensor, out: torch.Tensor) -> None:
    """Tiles of windows into their control points, less what filled up the last tiles; rounding below 0 is undone."""
    if windows.shape[:5].numel() == out.shape[:3].numel():
        torch.clamp(windows, min=0, out=out.view(windows.shape))
    else:
        points = windows.flatten(3, 4).flatten(1, 2)
        out.copy_(points[: out.shape[0], : out.shape[1], : out.shape[2]]).clamp_(min=0)


def _product(numbers: tuple[int, ...] | list[int]) -> int:
    result = 1
    for n in numbers:
        result *= n
    return result
