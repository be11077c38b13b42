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


@dataclass(frozen=True)
class Lines:
    """Linear interpolation between neighbouring samples: positions lie `share` of the way from `lower` to `upper`.

    Args:
        lower, upper: (positions,), whole numbers.
        share: (positions, 1).
    """

    lower: torch.Tensor
    upper: torch.Tensor
    share: torch.Tensor

    @classmethod
    def of(cls, weights: torch.Tensor, like: torch.Tensor) -> Lines:
        """From weights (positions, size) on the CPU, no more than two neighbours of a row above 0, their sum 1."""
        size = weights.shape[1]
        position = weights.double() @ torch.arange(size, dtype=torch.float64)
        lower = position.floor().clamp(0, size - 1)
        share = (position - lower)[:, None].to(like)
        upper = (lower + 1).clamp(max=size - 1)
        return cls(lower.long().to(like.device), upper.long().to(like.device), share)


class SlicedSearch:
    """Squared differences where the features of point k and label d are those of lattice cell k * stride + d.

    Args:
        fixed: (C, Kd, Kh, Kw), at the control points.
        moving: (C, Z, Y, X), on the lattice, the first cell that of the first point and label.
        strides: cells from point to point along z, y, x.
        scale: factor of the sum over the channels.
    """

    def __init__(
        self, fixed: torch.Tensor, moving: torch.Tensor, strides: Sequence[int], scale: float
    ) -> None:
        self._rows, centred = _rows_of_products(fixed, moving, scale)  # (Kd, Kh, Kw, C + 2), (C, Z, Y, X)
        self._planes = _completed(centred).transpose(0, 1).contiguous()  # (Z, C + 2, Y, X)
        self._strides = strides
        self._buffers: dict[int, torch.Tensor] = {}  # of each thread

    def fill_plane(self, plane: int, out: torch.Tensor, between_chunks: Hook | None) -> None:
        """Write (Kh, Kw, Ld, Lh, Lw), in any order in memory and any floating type."""
        height, width, *labels = out.shape
        across = self._planes.shape[3]
        run = labels[1] * across
        limit = _AT_ONCE_CPU if out.device.type == "cpu" else _AT_ONCE_GPU
        at_once = min(height, max(1, limit // (width * run)))
        size = (self._rows.shape[3], run)
        step = (self._strides[1] * across, self._planes.stride(1), 1)

        def make_worker(thread: int) -> Worker:
            if thread not in self._buffers:
                self._buffers[thread] = self._rows.new_empty(at_once * width * run)
            buffer = self._buffers[thread]

            def work(number: int) -> None:
                here = slice(number * at_once, (number + 1) * at_once)
                points, target = self._rows[plane, here], out[here]  # (R, Kw, C + 2), (R, Kw, Ld, Lh, Lw)
                product = _first(buffer, (len(points), width, run))
                windows = product.as_strided(
                    (len(points), width, *labels[1:]), (width * run, run + self._strides[2], across, 1)
                )
                for label in range(labels[0]):
                    cells = self._planes[plane * self._strides[0] + label].flatten()
                    seen = cells[here.start * step[0] :].as_strided((len(points), *size), step)
                    torch.bmm(points, seen, out=product).clamp_(min=0)  # what rounding takes below
                    target[:, :, label].copy_(windows)

            return work

        share_out(-(-height // at_once), make_worker, out.device, between_chunks)


class InterpolatedSearch:
    """The same for points and labels on any product grids.

    Args:
        moving: (C, D, H, W).
        weights: (Kd, Ld, D), (Kh, Lh, H) and (Kw, Lw, W), linear interpolation at every point plus label, on the CPU.
    """

    def __init__(
        self, fixed: torch.Tensor, moving: torch.Tensor, weights: Sequence[torch.Tensor], scale: float
    ) -> None:
        self._rows, self._moving = _rows_of_products(fixed, moving, scale)
        self._planes = [Window.of(plane, moving) for plane in weights[0]]
        self._lines = [Lines.of(line, moving) for line in weights[1]]
        groups = torch.split(weights[2], _POINTS_OF_A_GROUP)
        self._groups = [_Group.of(group, scale, moving) for group in groups]
        self._slices = moving.new_empty(len(moving), weights[0].shape[1], *moving.shape[2:])
        self._searches: dict[int, _RowSearch] = {}  # of each thread

    def fill_plane(self, plane: int, out: torch.Tensor, between_chunks: Hook | None) -> None:
        """Write (Kh, Kw, Ld, Lh, Lw), in any order in memory and any floating type."""
        window = self._planes[plane]
        source = self._moving[:, window.start : window.stop].flatten(2)
        torch.bmm(window.weights.expand(len(source), -1, -1), source, out=self._slices.flatten(2))

        def make_worker(thread: int) -> Worker:
            if thread not in self._searches:
                self._searches[thread] = _RowSearch(self._slices.shape, out.shape[1:], self._slices)
            search = self._searches[thread]

            def work(row: int) -> None:
                found = search.differences(
                    self._slices, self._lines[row], self._rows[plane, row], self._groups
                )
                out[row].copy_(found)

            return work

        share_out(len(out), make_worker, out.device, between_chunks)


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

    def __init__(self, slices: Sequence[int], out: Sequence[int], like: torch.Tensor) -> None:
        channels, depth, _, width = slices
        self._labels = tuple(out[1:])
        lines = depth * self._labels[1]
        self._lines = like.new_empty((channels + 2) * lines * width)
        self._squares = like.new_empty(channels * lines * width)
        self._products = like.new_empty(_POINTS_OF_A_GROUP * lines * width)
        self._found = like.new_empty(out[0], lines, self._labels[2])

    def differences(
        self, slices: torch.Tensor, line: Lines, rows: torch.Tensor, groups: Sequence[_Group]
    ) -> torch.Tensor:
        """Of slices (C, Ld, H, W) and the row of points (Kw, C + 2) at this line: (Kw, Ld, Lh, Lw)."""
        lines, steps = self._along(line, slices)
        first = 0
        for group in groups:
            here = slice(first, first + len(group.linear))
            products = _first(self._products, (len(group.linear), *lines.shape[1:]))
            torch.mm(rows[here], lines.flatten(1), out=products.flatten(1))
            lost = (steps[:, group.start : group.stop - 1] @ group.lost).view(len(steps), len(products), -1)
            seen = products[..., group.start : group.stop]
            torch.baddbmm(lost.transpose(0, 1), seen, group.linear, out=self._found[here])
            first = here.stop
        return self._found.clamp_(min=0).view(-1, *self._labels)

    def _along(self, line: Lines, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features along the lines, their squares and 1, (C + 2, lines, W); squared steps along x, (lines, W - 1)."""
        channels, count, _, width = slices.shape
        lines = _first(self._lines, (channels + 2, count * self._labels[1], width))
        features = lines[:-2]
        lower = features.view(channels, count, self._labels[1], width)
        upper = _first(self._squares, lower.shape)
        torch.index_select(slices, 2, line.lower, out=lower)
        torch.index_select(slices, 2, line.upper, out=upper)
        lower.lerp_(upper, line.share)
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
