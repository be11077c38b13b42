"""Min-convolution over displacement labels and mean field over control points: the two filters of the regularisation.

Volumes are (Kd, Kh, Kw, Ld, Lh, Lw): control points first, displacement labels last. They are worked on a piece at a
time. Source: Heinrich, MICCAI 2019, section 2.3; the padding is that of the published code.
"""

from __future__ import annotations

import math

import torch
from torch.autograd.function import once_differentiable

from pddnet.all_cores import Hook, Worker, share_out
from pddnet.errors import InputError
from pddnet.label_filter import FILTER, LabelFilter, band_matrix, label_filters, min_convolution_gradient

_ROWS_AT_ONCE_CPU = 2**17  # elements of a block of rows: with its two copies in the second-level cache
_RUNS_AT_ONCE_CPU = 2**19
_AT_ONCE_GPU = 2**25


def min_convolution(cost: torch.Tensor, *, between_chunks: Hook | None = None) -> torch.Tensor:
    """Lower envelope over the labels, approximately: minimum of 3^3, then twice the average of 3^3.

    The border is repeated before the minimum, as in the published code.

    Args:
        cost: (Kd, Kh, Kw, Ld, Lh, Lw).

    Returns:
        The same shape, float32 at least. Differentiable; where two labels tie for a minimum they share its gradient.
    """
    check_volume("cost", cost)
    out: torch.Tensor = _MinConvolution.apply(cost, between_chunks)  # type: ignore[no-untyped-call]
    return out


def mean_field(cost: torch.Tensor, *, between_chunks: Hook | None = None) -> torch.Tensor:
    """Message passing between control points: twice the average of 3^3 neighbours, border repeated.

    Args:
        cost: (Kd, Kh, Kw, Ld, Lh, Lw); each label is filtered over the first three axes on its own.

    Returns:
        The same shape, float32 at least. Differentiable.
    """
    check_volume("cost", cost)
    out: torch.Tensor = _MeanField.apply(cost, between_chunks)  # type: ignore[no-untyped-call]
    return out


def rows_at_once(rows: torch.Tensor) -> int:
    """How many rows (L, Kw) of points make a block: a divisor of their number, so that all blocks are alike."""
    most = max(1, _elements(rows, _ROWS_AT_ONCE_CPU) // math.prod(rows.shape[1:]))
    return next(n for n in range(min(most, len(rows)), 0, -1) if len(rows) % n == 0)


def runs_at_once(runs: torch.Tensor) -> int:
    """How many columns of (n, N) are filtered along the first axis at once."""
    return max(1, _elements(runs, _RUNS_AT_ONCE_CPU) // len(runs))


def accumulator(volume: torch.Tensor) -> torch.Tensor:
    """An empty tensor of the type that values of the volume are computed in: float32 at least."""
    half = volume.dtype in (torch.float16, torch.bfloat16)
    return volume.new_empty(0, dtype=torch.float32 if half else volume.dtype)


def check_volume(name: str, volume: torch.Tensor) -> None:
    """Raise InputError unless the volume has six axes and no empty one."""
    if volume.ndim != 6 or 0 in volume.shape:
        raise InputError(
            f"{name} has shape {tuple(volume.shape)}; (Kd, Kh, Kw, Ld, Lh, Lw), none of them 0, is needed"
        )


class _MinConvolution(torch.autograd.Function):
    """Keeps its argument alone for the backward pass, which goes through blocks of points again."""

    @staticmethod
    def forward(ctx, cost, between_chunks):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cost)
        points = cost.flatten(0, 2).flatten(1)  # (K, L)
        out = accumulator(cost).new_empty(points.shape)
        at_once = rows_at_once(points[:, :, None])

        def make_worker(_: int) -> Worker:
            envelope = LabelFilter(cost.shape[3:], at_once, accumulator(cost))

            def work(number: int) -> None:
                here = slice(number * at_once, (number + 1) * at_once)
                envelope.source.view(-1, at_once).copy_(points[here].T)
                envelope.run()
                out[here].T.copy_(envelope.result)

            return work

        share_out(len(points) // at_once, make_worker, cost.device, between_chunks)
        return out.view(cost.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (cost,) = ctx.saved_tensors
        return _min_convolution_gradient(cost, gradient), None


class _MeanField(torch.autograd.Function):
    """A linear filter; the backward pass is its adjoint."""

    @staticmethod
    def forward(_, cost, between_chunks):  # type: ignore[no-untyped-def]
        return _mean_field(cost, between_chunks, adjoint=False)

    @staticmethod
    @once_differentiable
    def backward(_, gradient):  # type: ignore[no-untyped-def]
        return _mean_field(gradient, None, adjoint=True), None


def _min_convolution_gradient(cost: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    like = accumulator(cost)
    points, gradients = (t.flatten(0, 2).flatten(1) for t in (cost, gradient))  # (K, L)
    out = like.new_empty(points.shape)
    at_once = rows_at_once(points[:, :, None])
    filters = label_filters(cost.shape[3:], like)

    def make_worker(_: int) -> Worker:
        def work(number: int) -> None:
            here = slice(number * at_once, (number + 1) * at_once)
            block, arriving = (
                t[here].T.to(like.dtype).reshape(*cost.shape[3:], -1) for t in (points, gradients)
            )
            out[here].T.copy_(min_convolution_gradient(block, arriving, filters).flatten(0, 2))

        return work

    share_out(len(points) // at_once, make_worker, cost.device)
    return out.view(cost.shape)


def _mean_field(cost: torch.Tensor, between_chunks: Hook | None, *, adjoint: bool) -> torch.Tensor:
    rows = cost.flatten(0, 1).flatten(2)  # (Kd*Kh, Kw, L)
    like = accumulator(cost)
    out = like.new_empty(rows.shape)
    along_x = band_matrix(cost.shape[2], FILTER, like=like)
    if adjoint:
        along_x = along_x.T

    def make_worker(_: int) -> Worker:
        def work(number: int) -> None:
            torch.mm(along_x, rows[number].to(like.dtype), out=out[number])

        return work

    share_out(len(rows), make_worker, cost.device, between_chunks)
    for axis in (1, 0):
        _filter_in_place(out.view(cost.shape).flatten(2), axis, adjoint, between_chunks)
    return out.view(cost.shape)


def _filter_in_place(volume: torch.Tensor, axis: int, adjoint: bool, between_chunks: Hook | None) -> None:
    """Twice the average of three along one of the first two axes of (Kd, Kh, N)."""
    matrix = band_matrix(volume.shape[axis], FILTER, like=volume)
    matrix = matrix.T if adjoint else matrix
    step = runs_at_once(volume.select(1 - axis, 0))
    pieces = -(-volume.shape[2] // step)

    def work(number: int) -> None:
        here = volume.select(1 - axis, number // pieces)[:, number % pieces * step :][:, :step]
        here.copy_(matrix @ here)

    share_out(volume.shape[1 - axis] * pieces, lambda _: work, volume.device, between_chunks)


def _elements(tensor: torch.Tensor, on_cpu: int) -> int:
    return on_cpu if tensor.device.type == "cpu" else _AT_ONCE_GPU
