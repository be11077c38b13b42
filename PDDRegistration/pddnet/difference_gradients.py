"""Squared differences of features on product grids, with gradients that keep nothing but the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.autograd.function import once_differentiable

from pddnet.plane_lines import PlaneLines

FillDifferences = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], object]


def squared_differences(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weights: Sequence[torch.Tensor],
    scale: float,
    fill: FillDifferences,
) -> torch.Tensor:
    """scale * sum over channels of (fixed(k) - moving(k + d))^2, differentiable in both.

    Args:
        fixed: (C, Kd, Kh, Kw), at the control points.
        moving: (C, D, H, W).
        weights: (Kd, Ld, D), (Kh, Lh, H), (Kw, Lw, W), see `correlation.lattice_weights`.
        fill: computes the values from (out, fixed, moving).

    Returns:
        (Kd, Kh, Kw, Ld, Lh, Lw).
    """
    out: torch.Tensor = _SquaredDifferences.apply(  # type: ignore[no-untyped-call]
        fixed, moving, [w.to(moving) for w in weights], scale, fill
    )
    return out


class _SquaredDifferences(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fixed, moving, weights, scale, fill):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(fixed, moving)
        ctx.weights, ctx.scale = weights, scale
        out = fixed.new_empty([w.shape[0] for w in weights] + [w.shape[1] for w in weights])
        fill(out, fixed, moving)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        fixed, moving = ctx.saved_tensors
        return *_gradients(fixed, moving, ctx.weights, 2 * ctx.scale * gradient), None, None, None


def _gradients(
    fixed: torch.Tensor, moving: torch.Tensor, weights: Sequence[torch.Tensor], arriving: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A plane of points at a time; what arrives is (Kd, Kh, Kw, Ld, Lh, Lw), of half the squares.

    With g the arriving gradient, that of f(k) is sum over d of g (f - m), and that of the sample m(k + d) is g (m - f).
    Sums over the labels of one row and column go before the channels, so that no sample of a channel exists.
    """
    mean = moving.mean((1, 2, 3), keepdim=True)  # as in the values: less is lost where large products cancel
    at_points = (fixed - mean).permute(1, 2, 3, 0)  # (Kd, Kh, Kw, C)
    planes = PlaneLines(moving - mean, weights)
    squares = _squares_along_x(weights[2])
    of_fixed, of_moving = torch.empty_like(at_points), torch.zeros_like(moving.permute(1, 2, 3, 0))
    for k, points in enumerate(at_points):
        lines, spread = planes.lines(k), planes.spread(arriving[k])  # (Kh, X, C), (Kh, Kw, X)
        total = arriving[k].flatten(2).sum(2)[..., None]
        of_fixed[k] = points * total - torch.bmm(spread, lines)
        of_lines = _weighted_samples(lines, arriving[k], squares)
        of_lines.baddbmm_(spread.transpose(1, 2), points, alpha=-1)
        planes.add_to_volume(of_moving, k, of_lines)
    return of_fixed.permute(3, 0, 1, 2), of_moving.permute(3, 0, 1, 2)


def _squares_along_x(weights: torch.Tensor) -> torch.Tensor:
    """Of interpolation weights (Kw, Lw, W): their squares, and products of neighbours, (Kw * Lw, 2 W - 1)."""
    flat = weights.flatten(0, 1)
    return torch.cat((flat.square(), flat[:, :-1] * flat[:, 1:]), 1)


def _weighted_samples(lines: torch.Tensor, arriving: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Interpolate lines (Kh, X, C) along x, weight by (Kh, Kw, Ld, Lh, Lw), and spread over the columns again.

    Interpolation takes two neighbours, so all of it is a matrix with one diagonal on either side of the main one.
    """
    height, channels = lines.shape[0], lines.shape[2]
    by_line = arriving.permute(0, 2, 3, 1, 4).reshape(-1, len(squares))  # (Kh*Ld*Lh, Kw*Lw)
    weights = by_line @ squares
    width = (weights.shape[1] + 1) // 2
    main, beside = weights[:, :width], weights[:, width:]
    columns = lines.view(-1, width, channels)  # (Kh*Ld*Lh, W, C)
    out = columns * main[..., None]
    out[:, :-1].addcmul_(columns[:, 1:], beside[..., None])
    out[:, 1:].addcmul_(columns[:, :-1], beside[..., None])
    return out.view(height, -1, channels)
