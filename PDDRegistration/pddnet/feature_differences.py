"""Squared differences of features by matrix products: |f - m|^2 = |f|^2 + |m|^2 - 2 f.m, a block of points at a time.

Control points and displacement labels form product grids here. Where the spacing of the points is a whole multiple of
the step of the labels, the moving features are resampled once on the lattice of both and a search is slicing;
elsewhere they are interpolated, along x after the products with the fixed features, when one channel is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pddnet.all_cores import Hook, Worker, share_out

_AT_ONCE_CPU = 2**18  # elements of a product, read again from the second-level cache
_AT_ONCE_GPU = 2**25
_POINTS_OF_A_GROUP = 8  # neighbours along x, which share a window of the moving features


@dataclass(frozen=True)
class Window:
    """Interpolation that needs only the samples from `start` to `stop`.

    Args:
        weights: (..., positions, stop - start).
    """

    start: int
    stop: int
    weights: torch.Tensor

    @classmethod
    def of(cls, weights: torch.Tensor, like: torch.Tensor) -> Window:
        """The samples that have a weight anywhere in (..., positions, size), a tensor on the CPU."""
        used = weights.reshape(-1, weights.shape[-1]).any(0).nonzero().flatten().tolist()
        start, stop = used[0], used[-1] + 1
        return cls(start, stop, weights[..., start:stop].contiguous().to(like))


def fill_by_slicing(
    out: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    strides: Sequence[int],
    scale: float,
    between_chunks: Hook | None,
) -> None:
    """Squared differences where the features of point k and label d are those of lattice cell k * stride + d.

    Args:
        out: (Kd, Kh, Kw, Ld, Lh, Lw), in any order in memory and any floating type.
        fixed: (C, Kd, Kh, Kw), at the control points.
        moving: (C, Z, Y, X), on the lattice, the first cell that of the first point and label.
        strides: cells from point to point along z, y, x.
        scale: factor of the sum over the channels.
    """
    depth, height, width, *labels = out.shape
    rows, centred = _rows_of_products(fixed, moving, scale)  # (Kd, Kh, Kw, C + 2), (C, Z, Y, X)
    planes = _completed(centred).transpose(0, 1).contiguous()  # (Z, C + 2, Y, X)
    across, plane = planes.shape[3], planes.shape[2] * planes.shape[3]
    run = labels[1] * across
    limit = _AT_ONCE_CPU if out.device.type == "cpu" else _AT_ONCE_GPU
    at_once = min(height, max(1, limit // (width * run)))
    groups = -(-height // at_once)

    def make_worker() -> Worker:
        buffer = rows.new_empty(at_once * width * run)

        def work(number: int) -> None:
            k, first = number // groups, number % groups * at_once
            points = rows[k, first : first + at_once]  # (R, Kw, C + 2)
            target = out[k, first : first + at_once]  # (R, Kw, Ld, Lh, Lw)
            size, step = (len(points), rows.shape[3], run), (strides[1] * across, plane, 1)
            product = buffer[: len(points) * width * run].view(len(points), width, run)
            windows = product.as_strided(
                (len(points), width, *labels[1:]), (width * run, run + strides[2], across, 1)
            )
            for label in range(labels[0]):
                seen = planes[k * strides[0] + label].flatten()[first * step[0] :].as_strided(size, step)
                torch.bmm(points, seen, out=product).clamp_(min=0)  # what rounding takes below
                target[:, :, label].copy_(windows)

        return work

    share_out(depth * groups, make_worker, out.device, between_chunks)


def fill_by_interpolation(
    out: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weights: Sequence[torch.Tensor],
    scale: float,
    between_chunks: Hook | None,
) -> None:
    """The same for points and labels on any product grid.

    Args:
        moving: (C, D, H, W).
        weights: (Kd, Ld, D), (Kh, Lh, H) and (Kw, Lw, W), linear interpolation at every point plus label, on the CPU.
    """
    depth, height = out.shape[:2]
    rows, centred = _rows_of_products(fixed, moving, scale)
    planes = [Window.of(plane, centred) for plane in weights[0]]
    lines = [Window.of(line, centred) for line in weights[1]]
    groups = [_Group.of(group, scale, centred) for group in torch.split(weights[2], _POINTS_OF_A_GROUP)]

    def make_worker() -> Worker:
        search = _RowSearch(centred.shape, out.shape, centred)

        def work(k: int) -> None:
            search.enter_plane(planes[k], centred)
            for row in range(height):
                search.enter_row(lines[row])
                out[k, row].copy_(search.differences(rows[k, row], groups))

        return work

    share_out(depth, make_worker, out.device, between_chunks)


@dataclass(frozen=True)
class _Group:
    """Interpolation along x for neighbouring points: (n, samples, Lw), and of the lost squares: (samples - 1, n * Lw).

    The square of an interpolated feature is less than the interpolated square by t (1 - t) (difference of the two
    samples)^2, where t is the fraction of the way.
    """

    start: int
    stop: int
    linear: torch.Tensor
    lost: torch.Tensor

    @classmethod
    def of(cls, weights: torch.Tensor, scale: float, like: torch.Tensor) -> _Group:
        window = Window.of(weights, weights)
        linear = window.weights  # (n, Lw, samples)
        lost = -scale * (linear[..., :-1] * linear[..., 1:]).flatten(0, 1).T
        return cls(
            window.start,
            window.stop,
            linear.transpose(1, 2).contiguous().to(like),
            lost.contiguous().to(like),
        )


class _RowSearch:
    """Dissimilarities of one row of points after another, in memory that is used again."""

    def __init__(self, moving: Sequence[int], out: Sequence[int], like: torch.Tensor) -> None:
        channels, _, height, width = moving
        self._labels = tuple(out[3:])
        lines = self._labels[0] * self._labels[1]
        self._slices = like.new_empty(channels, self._labels[0], height * width)
        self._lines = like.new_ones(channels + 2, lines, width)  # features, their square, 1
        self._squares = like.new_empty(channels, lines, width)
        self._steps = like.new_empty(lines, max(width - 1, 0))
        self._products = like.new_empty(_POINTS_OF_A_GROUP, lines * width)
        self._found = like.new_empty(out[2], lines, self._labels[2])
        self._height, self._width = height, width

    def enter_plane(self, plane: Window, moving: torch.Tensor) -> None:
        """Interpolate along z: (C, Ld, H * W)."""
        source = moving[:, plane.start : plane.stop].flatten(2)
        torch.bmm(plane.weights.expand(len(source), -1, -1), source, out=self._slices)

    def enter_row(self, line: Window) -> None:
        """Interpolate along y, and prepare what the squares need."""
        features, squares = self._lines[:-2], self._squares
        slices = self._slices.view(-1, self._height, self._width)[:, line.start : line.stop]
        weights = line.weights.expand(len(slices), -1, -1)
        torch.bmm(weights, slices, out=features.view(len(slices), -1, self._width))
        torch.mul(features, features, out=squares)
        torch.sum(squares, 0, out=self._lines[-2])
        steps = squares.flatten()[: features[..., 1:].numel()].view(features[..., 1:].shape)
        torch.sub(features[..., 1:], features[..., :-1], out=steps)
        torch.sum(steps.square_(), 0, out=self._steps)

    def differences(self, rows: torch.Tensor, groups: Sequence[_Group]) -> torch.Tensor:
        """Of a row of points (Kw, C + 2): (Kw, Ld, Lh, Lw), overwritten by the next."""
        first = 0
        for group in groups:
            count = len(group.linear)
            here = slice(first, first + count)
            products = self._products[:count]
            torch.mm(rows[here], self._lines.flatten(1), out=products)
            seen = products.view(count, -1, self._width)[:, :, group.start : group.stop]
            lost = self._steps[:, group.start : group.stop - 1] @ group.lost  # (lines, n * Lw)
            lost = lost.view(len(lost), count, -1).transpose(0, 1)
            torch.baddbmm(lost, seen, group.linear, out=self._found[here])
            first += count
        return self._found.clamp_(min=0).view(-1, *self._labels)


def _rows_of_products(
    fixed: torch.Tensor, moving: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What to multiply (moving, its square, 1) with for scale * |f - m|^2: (Kd, Kh, Kw, C + 2); the moving features.

    The mean of each channel is taken off both, so that less is lost where large products cancel.
    """
    mean = moving.mean((1, 2, 3), keepdim=True)
    points = (fixed - mean).movedim(0, 3)  # (Kd, Kh, Kw, C)
    square = points.square().sum(3, keepdim=True)
    rows = torch.cat((-2 * points, torch.ones_like(square), square), 3)
    return (rows * scale).contiguous(), (moving - mean).contiguous()


def _completed(moving: torch.Tensor) -> torch.Tensor:
    """Features, their square and 1: (C + 2, Z, Y, X)."""
    square = moving.square().sum(0, keepdim=True)
    return torch.cat((moving, square, torch.ones_like(square)))
