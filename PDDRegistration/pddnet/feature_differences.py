"""Squared differences of features by matrix products: |f - m|^2 = |f|^2 + |m|^2 - 2 f.m, a block of points at a time.

Control points and displacement labels form product grids here. Where the spacing of the points is a whole multiple of
the step of the labels, the moving features are resampled once on the lattice of both and a search is slicing;
elsewhere they are interpolated, along x after the products with the fixed features, when one channel is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pddnet.all_cores import Hook, Worker, share_out

_AT_ONCE_CPU = 2**18  # elements of a product, read again from the second-level cache
_LINES_AT_ONCE_CPU = 2**19  # of the features along some lines: smaller pieces are more calls than they save
_AT_ONCE_GPU = 2**25
_POINTS_OF_A_GROUP = 16  # neighbours along x, which share a window of the moving features


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
            for first in range(0, out.shape[3], search.at_once):
                labels = slice(first, first + search.at_once)
                slices = search.slices(planes[k], labels, centred)
                for row in range(height):
                    found = search.differences(slices, lines[row], rows[k, row], groups)
                    out[k, row, :, labels].copy_(found)

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
    """Dissimilarities of one row of points after another, in memory that is used again and stays in the cache.

    Only some of the labels along z are searched at once: the features along their lines fill the cache.
    """

    def __init__(self, moving: Sequence[int], out: Sequence[int], like: torch.Tensor) -> None:
        channels, _, height, width = moving
        self._labels = tuple(out[3:])
        limit = _LINES_AT_ONCE_CPU if like.device.type == "cpu" else _AT_ONCE_GPU
        self.at_once = min(self._labels[0], max(1, limit // (channels * self._labels[1] * width)))
        lines = self.at_once * self._labels[1]
        self._slices = like.new_empty(channels * self.at_once * height * width)
        self._lines = like.new_empty((channels + 2) * lines * width)
        self._squares = like.new_empty(channels * lines * width)
        self._products = like.new_empty(_POINTS_OF_A_GROUP * lines * width)
        self._found = like.new_empty(out[2] * lines * self._labels[2])

    def slices(self, plane: Window, labels: slice, moving: torch.Tensor) -> torch.Tensor:
        """Features for some of a plane's labels along z: (C, n, H, W)."""
        source, weights = moving[:, plane.start : plane.stop].flatten(2), plane.weights[labels]
        slices = _first(self._slices, (len(source), len(weights), *moving.shape[2:]))
        torch.bmm(weights.expand(len(source), -1, -1), source, out=slices.flatten(2))
        return slices

    def differences(
        self, slices: torch.Tensor, line: Window, rows: torch.Tensor, groups: Sequence[_Group]
    ) -> torch.Tensor:
        """Of the row of points (Kw, C + 2) at this line along y: (Kw, n, Lh, Lw), overwritten by the next."""
        lines, steps = self._along(line, slices)
        found = _first(self._found, (len(rows), len(steps), self._labels[2]))
        first = 0
        for group in groups:
            here = slice(first, first + len(group.linear))
            products = _first(self._products, (len(group.linear), *lines.shape[1:]))
            torch.mm(rows[here], lines.flatten(1), out=products.flatten(1))
            lost = (steps[:, group.start : group.stop - 1] @ group.lost).view(len(steps), len(products), -1)
            seen = products[..., group.start : group.stop]
            torch.baddbmm(lost.transpose(0, 1), seen, group.linear, out=found[here])
            first = here.stop
        return found.clamp_(min=0).view(len(rows), slices.shape[1], *self._labels[1:])

    def _along(self, line: Window, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features along the lines, their squares and 1, (C + 2, lines, W); squared steps along x, (lines, W - 1)."""
        channels, count, _, width = slices.shape
        lines = _first(self._lines, (channels + 2, count * self._labels[1], width))
        features = lines[:-2]
        torch.matmul(
            line.weights,
            slices[:, :, line.start : line.stop],
            out=features.view(channels, count, self._labels[1], width),
        )
        torch.sum(torch.mul(features, features, out=_first(self._squares, features.shape)), 0, out=lines[-2])
        lines[-1] = 1
        later, earlier = features[..., 1:], features[..., :-1]
        steps = torch.sub(later, earlier, out=_first(self._squares, later.shape))
        return lines, steps.square_().sum(0)


def _first(buffer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return buffer[: math.prod(shape)].view(*shape)


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
