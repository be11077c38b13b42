"""Squared differences of features on product grids, with gradients that keep nothing but the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.autograd.function import once_differentiable

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
    """A row of points at a time, so that the samples of all channels exist for one row only."""
    of_fixed, of_moving = torch.empty_like(fixed), torch.zeros_like(moving)
    by_slice = moving.transpose(0, 1).flatten(1)  # (D, C*H*W)
    for k, plane in enumerate(weights[0]):
        slices = (plane @ by_slice).view(-1, moving.shape[0], *moving.shape[2:])  # (Ld, C, H, W)
        of_slices = torch.zeros_like(slices)
        for row, line in enumerate(weights[1]):
            of_fixed[:, k, row], of_lines = _gradients_of_row(
                fixed[:, k, row], line @ slices, weights[2], arriving[k, row]
            )
            of_slices += line.T @ of_lines
        of_moving += (plane.T @ of_slices.flatten(1)).view(-1, *of_slices.shape[1:]).transpose(0, 1)
    return of_fixed, of_moving


def _gradients_of_row(
    fixed: torch.Tensor, lines: torch.Tensor, weights: torch.Tensor, arriving: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """From (C, Kw), (Ld, C, Lh, W), (Kw, Lw, W) and (Kw, Ld, Lh, Lw): gradients of the first two."""
    across = weights.flatten(0, 1)  # (Kw*Lw, W)
    samples = (lines @ across.T).view(*lines.shape[:3], *weights.shape[:2])  # (Ld, C, Lh, Kw, Lw)
    samples.sub_(fixed[:, None, :, None]).mul_(arriving.permute(1, 2, 0, 3)[:, None])
    return -samples.sum((0, 2, 4)), samples.flatten(3) @ across
