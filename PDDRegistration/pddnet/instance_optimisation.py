"""Fit a smooth displacement to one pair: to its probabilities (published), or to its features.

No gradient goes through a network. Displacements are normalised and written (x, y, z). Both fits are deterministic.
Source: Heinrich, MICCAI 2019, and the fit of the published two-warp script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pddnet.correlation import Hook, control_points
from pddnet.errors import InputError

_AVERAGE_OF_THREE = (1 / 3, 1 / 3, 1 / 3)


@dataclass(frozen=True)
class InstanceOptimisation:
    """How the displacement is fitted to the probabilities; the defaults are the published numbers.

    Args:
        iterations: steps of Adam.
        learning_rate: its step length, normalised.
        diffusion_weight: weight of the squared differences of neighbouring control points.
        smoothing_passes: averages of 3^3 between the parameters and the displacement.
    """

    iterations: int = 50
    learning_rate: float = 0.02
    diffusion_weight: float = 1.5
    smoothing_passes: int = 2


@dataclass(frozen=True)
class FeatureRefinement:
    """How the displacement is refined on features.

    Args:
        iterations: steps of Adam.
        learning_rate: its step length, in voxels of the features.
        diffusion_weight: weight of the squared differences of neighbouring displacements, in voxels.
        smoothing_passes: averages of 3^3 between the parameters and the displacement.
    """

    iterations: int = 50
    learning_rate: float = 0.2
    diffusion_weight: float = 1.0
    smoothing_passes: int = 2


def optimise_instance(
    probabilities: torch.Tensor,
    initial: torch.Tensor,
    reach: Sequence[float],
    config: InstanceOptimisation = InstanceOptimisation(),
    *,
    between_chunks: Hook | None = None,
) -> torch.Tensor:
    """Displacements that are probable at each control point and smooth between them.

    Minimises -mean of the probabilities at the current displacements (linear between labels, 0 beyond the reach)
    + diffusion_weight * mean squared difference of neighbours, summed over the three axes.

    Args:
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw).
        initial: (Kd, Kh, Kw, 3), normalised (x, y, z), usually the expected displacement; it is not changed.
        reach: of the labels, normalised (x, y, z).
        between_chunks: called before each iteration; what it raises ends the fit.

    Returns:
        (Kd, Kh, Kw, 3), normalised (x, y, z): the displacement the last iteration evaluated, as published.
    """
    if probabilities.ndim != 6 or tuple(initial.shape) != (*probabilities.shape[:3], 3) or len(reach) != 3:
        raise InputError(
            f"probabilities have shape {tuple(probabilities.shape)}, initial {tuple(initial.shape)}, reach {reach}; "
            "(Kd, Kh, Kw, Ld, Lh, Lw), (Kd, Kh, Kw, 3) and three numbers are needed"
        )
    costs = -probabilities.detach().flatten(0, 2)[:, None]  # (K, 1, Ld, Lh, Lw)
    scale = 1 / torch.tensor(tuple(reach), dtype=initial.dtype, device=initial.device)

    def mean_cost(displacement: torch.Tensor) -> torch.Tensor:
        positions = (displacement * scale).reshape(-1, 1, 1, 1, 3)
        data = F.grid_sample(costs, positions, align_corners=True).mean()
        return data + config.diffusion_weight * _mean_squared_differences(displacement)

    return _fit(mean_cost, initial, config.iterations, config.learning_rate, config.smoothing_passes, between_chunks)


def refine_on_features(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    initial: torch.Tensor,
    config: FeatureRefinement = FeatureRefinement(),
    *,
    between_chunks: Hook | None = None,
) -> torch.Tensor:
    """Displacements that bring the moving features onto the fixed ones.

    Minimises the mean squared difference of fixed and warped features (border value held outside) + diffusion_weight *
    mean squared difference of neighbouring displacements in voxels of the features, summed over the three axes.

    Args:
        fixed_features, moving_features: (1, C, D, H, W) at whatever stride the refinement shall run.
        initial: (D, H, W, 3), normalised (x, y, z), on the grid of the features; it is not changed.
        between_chunks: called before each iteration; what it raises ends the fit.

    Returns:
        (D, H, W, 3), normalised (x, y, z).
    """
    shape = fixed_features.shape
    if len(shape) != 5 or shape != moving_features.shape or tuple(initial.shape) != (*shape[2:], 3):
        raise InputError(
            f"fixed_features have shape {tuple(shape)}, moving_features {tuple(moving_features.shape)}, initial "
            f"{tuple(initial.shape)}; (1, C, D, H, W) twice and (D, H, W, 3) are needed"
        )
    identity = control_points(tuple(shape[2:]), dtype=initial.dtype, device=initial.device)
    extent = torch.tensor(shape[:1:-1], dtype=initial.dtype, device=initial.device)  # (W, H, D)
    voxel = 2 / (extent - 1).clamp(min=1)
    fixed, moving = fixed_features.detach(), moving_features.detach()

    def mean_cost(in_voxels: torch.Tensor) -> torch.Tensor:
        positions = (identity + in_voxels * voxel)[None]
        warped = F.grid_sample(moving, positions, padding_mode="border", align_corners=True)
        return F.mse_loss(warped, fixed) + config.diffusion_weight * _mean_squared_differences(in_voxels)

    start = initial / voxel
    fitted = _fit(mean_cost, start, config.iterations, config.learning_rate, config.smoothing_passes, between_chunks)
    return fitted * voxel


def _fit(
    mean_cost: Callable[[torch.Tensor], torch.Tensor],
    initial: torch.Tensor,
    iterations: int,
    learning_rate: float,
    smoothing_passes: int,
    between_chunks: Hook | None,
) -> torch.Tensor:
    """Adam on parameters (D, H, W, 3) whose smoothed version is the displacement; the last one evaluated."""
    parameters = initial.detach().clone().requires_grad_()
    filters = [_zero_padded_average(n, smoothing_passes, initial) for n in initial.shape[:3]]
    optimiser = torch.optim.Adam([parameters], lr=learning_rate)
    displacement = initial.detach()
    with torch.enable_grad():
        for _ in range(iterations):
            if between_chunks is not None:
                between_chunks()
            optimiser.zero_grad()
            displacement = _filtered(parameters, filters)
            mean_cost(displacement).backward()
            optimiser.step()
    return displacement.detach()


def _filtered(values: torch.Tensor, filters: Sequence[torch.Tensor]) -> torch.Tensor:
    """One matrix along each of the first three axes of (D, H, W, 3)."""
    for axis, matrix in enumerate(filters):
        flat = values.flatten(axis + 1)  # (..., size, rest)
        values = (matrix @ flat).view_as(values)
    return values


def _zero_padded_average(size: int, passes: int, like: torch.Tensor) -> torch.Tensor:
    """Repeated averages of three, zeros beyond the border counted, as a matrix (size, size).

    A matrix, because the gradient of average pooling is not deterministic on every GPU.
    """
    ones = torch.ones(size, size, dtype=torch.float64)
    once = (ones.triu(-1) * ones.tril(1)) / 3
    return torch.linalg.matrix_power(once, passes).to(like.device, like.dtype)


def _mean_squared_differences(displacement: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbours along each axis of (D, H, W, 3), summed over the axes."""
    terms = [displacement.diff(dim=axis).square().mean() for axis in range(3) if displacement.shape[axis] > 1]
    return torch.stack(terms).sum() if terms else displacement.new_zeros(())
