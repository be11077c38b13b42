"""Min-convolution of a block of control points in memory that stays in the cache of a core.

The points of a block lie last, so that a shift by one label is a shift by a run of numbers. Source: Heinrich, MICCAI
2019, section 2.3; the padding is that of the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

FILTER = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)  # two averages of three, one after the other


def band_matrix(size: int, taps: Sequence[float], *, like: torch.Tensor) -> torch.Tensor:
    """A 1-D filter with the border value repeated, as a matrix (size, size): filtered = matrix @ values."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    rows = torch.arange(size)
    for shift, tap in enumerate(taps, start=-(len(taps) // 2)):
        columns = (rows + shift).clamp(0, size - 1)
        matrix.index_put_((rows, columns), torch.tensor(tap, dtype=torch.float64), accumulate=True)
    return matrix.to(like.device, like.dtype)


def label_filters(shape: Sequence[int], like: torch.Tensor) -> list[torch.Tensor]:
    """For each label axis, the filter of the minima from one label before to one after it: (size, size + 2).

    Two labels beyond the border the minimum is the same as one beyond it, so its tap is added there.
    """
    return [band_matrix(size + 2, FILTER, like=like)[1:-1].contiguous() for size in shape]


class LabelFilter:
    """Min-convolution of n control points at a time: fill `source`, `run()`, read `result` before the next run.

    Minima along each axis are taken from one label before the first to one after the last: what a border repeated
    before the minimum gives, [c0, min(c0, c1), min(c0, c1, c2), ..., cn].

    Args:
        shape: labels (Ld, Lh, Lw).
        points: how many control points, n.
        like: type and device.
    """

    def __init__(self, shape: Sequence[int], points: int, like: torch.Tensor) -> None:
        self._steps: list[Callable[[], object]] = []
        largest = math.prod(size + 2 for size in shape) * points
        self._here, self._there, self._pairs = (like.new_empty(largest) for _ in range(3))
        self.source = values = _first(self._here, (*shape, points))  # (Ld, Lh, Lw, n)
        for axis in range(3):
            values = self._plan_minimum(values, axis)  # (Ld + 2, Lh + 2, Lw + 2, n) in the end
        for axis, matrix in enumerate(label_filters(shape, like)):
            values = self._plan_filter(values, axis, matrix)
        self.result = values.view(-1, points)  # (L, n)

    def run(self) -> None:
        """Turn `source`, which is overwritten, into `result`."""
        for step in self._steps:
            step()

    def _plan_minimum(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        size, shape = values.shape[axis], list(values.shape)
        shape[axis] = size + 1
        pairs = _first(self._pairs, shape)
        shape[axis] = size + 2
        extended = _first(self._there, shape)
        ends = _every(values, axis, max(size - 1, 1))  # the first and the last, or the only one
        self._steps += [
            partial(_every(pairs, axis, size).copy_, ends),
            partial(_every(extended, axis, size + 1).copy_, ends),
        ]
        for target, source, count in ((pairs, values, size - 1), (extended, pairs, size)):
            one, other = source.narrow(axis, 0, count), source.narrow(axis, 1, count)
            self._steps.append(partial(torch.minimum, one, other, out=target.narrow(axis, 1, count)))
        self._here, self._there = self._there, self._here
        return extended

    def _plan_filter(self, values: torch.Tensor, axis: int, matrix: torch.Tensor) -> torch.Tensor:
        shape = [*values.shape[:axis], matrix.shape[0], *values.shape[axis + 1 :]]
        filtered = _first(self._there, shape)
        batch = math.prod(shape[:axis])
        many, few = (t.view(batch, t.shape[axis], -1) for t in (values, filtered))
        self._steps.append(partial(torch.bmm, matrix.expand(batch, *matrix.shape), many, out=few))
        self._here, self._there = self._there, self._here
        return filtered


def _first(buffer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return buffer[: math.prod(shape)].view(*shape)


def _every(values: torch.Tensor, axis: int, step: int) -> torch.Tensor:
    index = [slice(None)] * values.ndim
    index[axis] = slice(None, None, step)
    return values[tuple(index)]


def min_convolution_gradient(
    cost: torch.Tensor, gradient: torch.Tensor, filters: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Gradient at a block of points (Ld, Lh, Lw, n), from that at its min-convolution; labels that tie share it."""
    kept = []
    values = cost
    for axis in range(3):
        pairs = torch.minimum(*_neighbours(values, axis))
        kept.append((values, pairs))
        values = _extended(values, pairs, axis)
    for axis, matrix in enumerate(filters):
        batch = math.prod(gradient.shape[:axis])
        columns = gradient.reshape(batch, gradient.shape[axis], -1)
        filtered = torch.matmul(matrix.T, columns)
        gradient = filtered.view(*gradient.shape[:axis], len(matrix.T), *gradient.shape[axis + 1 :])
    for axis, (values, pairs) in reversed(list(enumerate(kept))):
        gradient = _gradient_before_extension(values, pairs, gradient, axis)
    return gradient


def _extended(values: torch.Tensor, pairs: torch.Tensor, axis: int) -> torch.Tensor:
    """What `LabelFilter` computes along one axis, from the values and the minima of neighbours."""
    size = values.shape[axis]
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, size - 1, 1)
    if size == 1:
        return torch.cat((first, first, first), axis)
    ends = (first, pairs.narrow(axis, 0, 1), pairs.narrow(axis, size - 2, 1), last)
    return torch.cat((*ends[:2], torch.minimum(*_neighbours(pairs, axis)), *ends[2:]), axis)


def _gradient_before_extension(
    values: torch.Tensor, pairs: torch.Tensor, gradient: torch.Tensor, axis: int
) -> torch.Tensor:
    """From the gradient at `_extended` to that at the values."""
    size = values.shape[axis]
    if size == 1:
        return gradient.sum(axis, keepdim=True)
    of_pairs = _shared_out(pairs, gradient.narrow(axis, 2, size - 2), axis)
    of_pairs.narrow(axis, 0, 1).add_(gradient.narrow(axis, 1, 1))
    of_pairs.narrow(axis, size - 2, 1).add_(gradient.narrow(axis, size, 1))
    of_values = _shared_out(values, of_pairs, axis)
    of_values.narrow(axis, 0, 1).add_(gradient.narrow(axis, 0, 1))
    of_values.narrow(axis, size - 1, 1).add_(gradient.narrow(axis, size + 1, 1))
    return of_values


def _shared_out(values: torch.Tensor, gradient: torch.Tensor, axis: int) -> torch.Tensor:
    """The gradient at the minima of neighbours, given to the smaller one of each two, or to both by half."""
    one, other = _neighbours(values, axis)
    out = torch.zeros_like(values)
    to_one = torch.sub(other, one).sign_().add_(1).mul_(gradient).mul_(0.5)
    to_first, to_second = _neighbours(out, axis)
    to_first.copy_(to_one)
    to_second.add_(gradient).sub_(to_one)
    return out


def _neighbours(values: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    count = values.shape[axis] - 1
    return values.narrow(axis, 0, count), values.narrow(axis, 1, count)
