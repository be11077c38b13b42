"""Fit a smooth displacement to one pair: to its probabilities (published), or to its features.

No gradient goes through a network, and both fits are deterministic. Displacements are normalised and written
(x, y, z). Source: Heinrich, MICCAI 2019, and the fit of the published two-warp script.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pddnet.all_cores import Hook
from pddnet.correlation import control_points
from pddnet.errors import InputError
from pddnet.regularisation import diffusion


@dataclass(frozen=True)
class InstanceOptimisation:
    """How the displacement is fitted to the probabilities; the defaults are the published numbers.

    Args:
        iterations: steps of Adam.
        learning_rate: its step length, normalised.
        diffusion_weight: weight of the squared differences of neighbouring control points.
        smoothing_passes: averages of 3^3 between the parameters and the displacement.
        averaged: how many of the last displacements are averaged. Adam's steps are nearly half a label long, so
            the published fit, which takes the last one, turns rounding errors into differences of some 4 %.
    """

    iterations: int = 50
    learning_rate: float = 0.02
    diffusion_weight: float = 1.5
    smoothing_passes: int = 2
    averaged: int = 1


PUBLISHED_FIT = InstanceOptimisation()
STEADY_FIT = InstanceOptimisation(iterations=54, averaged=9)  # centred on the published fit's last iteration


@dataclass(frozen=True)
class FeatureRefinement:
    """How the displacement is refined on features.

    Args:
        iterations: steps of Adam.
        learning_rate: its step length, in voxels of the features.
        diffusion_weight: weight of the squared differences of neighbouring displacements, in voxels.
        smoothing_passes: averages of 3^3 between the parameters and the displacement.
        averaged: how many of the last displacements are averaged.
    """

    iterations: int = 50
    learning_rate: float = 0.2
    diffusion_weight: float = 1.0
    smoothing_passes: int = 2
    averaged: int = 1


DEFAULT_REFINEMENT = FeatureRefinement()


def optimise_instance(
    probabilities: torch.Tensor,
    initial: torch.Tensor,
    reach: Sequence[float],
    config: InstanceOptimisation = PUBLISHED_FIT,
    *,
    between_chunks: Hook | None = None,
) -> torch.Tensor:
    """Displacements that are probable at each control point and smooth between them.

    Minimises -mean of the probabilities at the current displacements (linear between labels, 0 beyond the
    reach) + diffusion_weight * mean squared difference of neighbours, summed over the three axes.

    Args:
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw).
        initial: (Kd, Kh, Kw, 3), normalised (x, y, z), usually the expected displacement; it is not changed.
        reach: of the labels, normalised (x, y, z).
        between_chunks: called before each iteration; what it raises ends the fit.

    Returns:
        (Kd, Kh, Kw, 3), normalised (x, y, z): what the last iterations evaluated; no iterations return `initial`.
    """
    if probabilities.ndim != 6 or tuple(initial.shape) != (*probabilities.shape[:3], 3) or len(reach) != 3:
        raise InputError(
            f"probabilities have shape {tuple(probabilities.shape)}, initial {tuple(initial.shape)}, "
            f"reach is {reach}; (Kd, Kh, Kw, Ld, Lh, Lw), (Kd, Kh, Kw, 3) and three numbers are needed"
        )
    costs = -probabilities.detach().flatten(0, 2)[:, None]  # (K, 1, Ld, Lh, Lw)
    scale = 1 / torch.tensor(tuple(reach), dtype=initial.dtype, device=initial.device)

    def mean_cost(displacement: torch.Tensor) -> torch.Tensor:
        positions = (displacement * scale).reshape(-1, 1, 1, 1, 3)
        data = F.grid_sample(costs, positions, align_corners=True).mean()
        return data + config.diffusion_weight * diffusion(displacement)

    return _fit(mean_cost, initial, config, between_chunks)


def refine_on_features(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    initial: torch.Tensor,
    config: FeatureRefinement = DEFAULT_REFINEMENT,
    *,
    weights: torch.Tensor | None = None,
    between_chunks: Hook | None = None,
) -> torch.Tensor:
    """Displacements that bring the moving features onto the fixed ones.

    Minimises the mean squared difference of fixed and warped features (border value held outside) +
    diffusion_weight * mean squared difference of neighbouring displacements in voxels of the features, summed
    over the three axes.

    Args:
        fixed_features, moving_features: (1, C, D, H, W) at whatever stride the refinement shall run.
        initial: (D, H, W, 3), normalised (x, y, z), on the grid of the features; it is not changed.
        weights: (D, H, W), how much the features of each point count; all alike by default.
        between_chunks: called before each iteration; what it raises ends the fit.

    Returns:
        (D, H, W, 3), normalised (x, y, z).
    """
    shape = fixed_features.shape
    if len(shape) != 5 or shape != moving_features.shape or tuple(initial.shape) != (*shape[2:], 3):
        raise InputError(
            f"fixed_features have shape {tuple(shape)}, moving_features {tuple(moving_features.shape)}, "
            f"initial {tuple(initial.shape)}; (1, C, D, H, W) twice and (D, H, W, 3) are needed"
        )
    identity = control_points(tuple(shape[2:]), dtype=initial.dtype, device=initial.device)
    extent = torch.tensor(shape[:1:-1], dtype=initial.dtype, device=initial.device)  # (W, H, D)
    voxel = 2 / (extent - 1).clamp(min=1)
    fixed, moving = fixed_features.detach(), moving_features.detach()
    counted = (
        torch.ones(shape[2:], dtype=initial.dtype, device=initial.device) if weights is None else weights
    )

    def mean_cost(in_voxels: torch.Tensor) -> torch.Tensor:
        positions = (identity + in_voxels * voxel)[None]
        warped = F.grid_sample(moving, positions, padding_mode="border", align_corners=True)
        difference = (warped - fixed).square().mean(1)[0] * counted  # (D, H, W)
        return difference.mean() + config.diffusion_weight * diffusion(in_voxels)

    start = initial / voxel
    return voxel * _fit(mean_cost, start, config, between_chunks)


def _fit(
    mean_cost: Callable[[torch.Tensor], torch.Tensor],
    initial: torch.Tensor,
    config: InstanceOptimisation | FeatureRefinement,
    between_chunks: Hook | None,
) -> torch.Tensor:
    """Adam on parameters (D, H, W, 3) whose smoothed version is the displacement; the mean of the last ones."""
    parameters = initial.detach().clone().requires_grad_()
    filters = [_zero_padded_average(n, config.smoothing_passes, initial) for n in initial.shape[:3]]
    optimiser = torch.optim.Adam([parameters], lr=config.learning_rate)
    evaluated = deque([parameters.detach().clone()], maxlen=max(1, config.averaged))
    with torch.enable_grad():
        for _ in range(config.iterations):
            if between_chunks is not None:
                between_chunks()
            displacement = _filtered(parameters, filters)
            evaluated.append(displacement.detach())
            (parameters.grad,) = torch.autograd.grad(mean_cost(displacement), parameters)
            optimiser.step()
    return torch.stack(tuple(evaluated)).mean(0)


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
    once = torch.ones(size, size, dtype=torch.float64).triu(-1).tril(1) / 3
    repeated: torch.Tensor = torch.linalg.matrix_power(once, passes)
    return repeated.to(like.device, like.dtype)
