"""One level of a registration on a lattice: features, dissimilarity volume, regularisation, update of the field.

The search runs in both directions where a level is symmetric. Fields lie on the half-resolution lattice (cells of two
working voxels), in working voxels, channels (x, y, z).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from pddnet.config import LatticeLevel
from pddnet.coupling import quadratic_mean_field, weighted_box_mean
from pddnet.features.mind_ssc import mind_ssc
from pddnet.lattice import Lattice, compose, extended, interpolate, sample_displaced, symmetrised, warp_on
from pddnet.lattice_correlation import lattice_dissimilarity, lattice_labels
from pddnet.preprocessing import WorkingScan
from pddnet.regularisation import (
    PUBLISHED_WEIGHTS,
    displacement_covariance_diagonal,
    entropy,
    expected_displacement,
    regularise,
)
from pddnet.uncertainty import label_spread

Hook = Callable[[], None]

FIELD_STEP = 2
_AIR_WEIGHT = 0.02
_LEAST_WEIGHT = 1e-4
_LEAST_CONTROL_POINTS = 2
_EXTENSION = 0.02


@dataclass(frozen=True)
class FieldPair:
    """The state between levels, on the half-resolution lattice.

    Args:
        forward: (3, D, H, W), fixed -> moving, working voxels.
        backward: (3, D, H, W), moving -> fixed, working voxels.
        spread: (2, D, H, W), variance (working voxels squared) and entropy (nats) of the forward field so far.
    """

    forward: torch.Tensor
    backward: torch.Tensor
    spread: torch.Tensor

    @classmethod
    def zero(cls, voxels: tuple[int, int, int], device: torch.device) -> FieldPair:
        """No displacement on a working grid of `voxels` (D, H, W)."""
        shape = Lattice.of_cells(voxels, FIELD_STEP).shape
        return cls(*(torch.zeros((channels, *shape), device=device) for channels in (3, 3, 2)))


@dataclass(frozen=True)
class LevelSettings:
    """What all levels of a registration share; see `Preset`."""

    body_weights: bool
    temperature: float


def fitted_to(level: LatticeLevel, voxels: tuple[int, int, int]) -> LatticeLevel | None:
    """The level with its reach cut to half the shortest edge, or None where the grid is too small for it."""
    if min(voxels) // level.spacing < _LEAST_CONTROL_POINTS:
        return None
    reach = min(level.reach, max(level.step, min(voxels) // 2 // level.step * level.step))
    return replace(level, reach=reach)


def run_level(
    fixed: WorkingScan,
    moving: WorkingScan,
    fields: FieldPair,
    level: LatticeLevel,
    settings: LevelSettings,
    between_chunks: Hook,
) -> FieldPair:
    """Search at one level from where `fields` left off."""
    forward, spread = _search(fixed, moving, fields.forward, fields.spread, level, settings, between_chunks)
    between_chunks()
    backward = fields.backward
    if level.symmetric:
        backward, _ = _search(moving, fixed, backward, None, level, settings, between_chunks)
        between_chunks()
        half, pooled_by = Lattice.of_cells(_voxels(fixed), FIELD_STEP), 2 if level.step >= 4 else 1
        forward, backward = symmetrised(forward, backward, half, pooled_by, between_iterations=between_chunks)
    return FieldPair(forward, backward, fields.spread if spread is None else spread)


def level_features(
    image: torch.Tensor, level: LatticeLevel, between_chunks: Hook | None = None
) -> torch.Tensor:
    """Features of a scan (1, D, H, W) on the lattice of cells of `level.step` voxels: (C, D', H', W').

    Twelve MIND-SSC channels and the weighted intensity; the sub^3 finer cells of a cell follow as channels. Scaled so
    that the sum of squared differences over channels is the mean over these sub-cells.
    """
    whole = image[None]
    if level.features == "coarse":
        intensity = F.avg_pool3d(whole, 2)
        descriptor, cell = mind_ssc(intensity, dilation=1, between_channels=between_chunks), 2
    elif level.features == "fine":
        intensity = F.avg_pool3d(whole, 2)
        descriptor, cell = mind_ssc(whole, dilation=2, stride=2, between_channels=between_chunks), 2
    else:
        intensity, cell = whole, 1
        descriptor = mind_ssc(whole, dilation=2, between_channels=between_chunks)
    features = torch.cat((descriptor, level.intensity_weight * intensity), 1)
    pooled_by = level.step // level.sub // cell
    if pooled_by > 1:
        features = F.avg_pool3d(features, pooled_by)
    return _space_to_depth(features[0], level.sub) if level.sub > 1 else features[0]


def control_point_weights(
    fixed: WorkingScan, moving: WorkingScan, field: torch.Tensor, level: LatticeLevel, body_weights: bool
) -> torch.Tensor:
    """How much each control point counts, (D, H, W): the share of its cell in the body that the moving scan shows.

    Air that both scans know counts 0.02; where a scan ends or is masked next to nothing counts.
    """
    voxels = _voxels(fixed)
    control = Lattice.of_cells(voxels, level.spacing)
    known, body, shown = (
        F.avg_pool3d(x[None], level.spacing)[0] for x in (fixed.known, fixed.body, moving.known)
    )
    counted = torch.maximum(body, _AIR_WEIGHT * known) if body_weights else known
    at = interpolate(field, Lattice.of_cells(voxels, FIELD_STEP), control)
    return (counted * sample_displaced(shown, control, at))[0].clamp(min=_LEAST_WEIGHT)


def _search(
    fixed: WorkingScan,
    moving: WorkingScan,
    field: torch.Tensor,
    spread: torch.Tensor | None,
    level: LatticeLevel,
    settings: LevelSettings,
    between_chunks: Hook,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One direction: the composed field, and the accumulated spread where one is given."""
    voxels, stride, radius = _voxels(fixed), level.spacing // level.step, level.reach // level.step
    half, control = Lattice.of_cells(voxels, FIELD_STEP), Lattice.of_cells(voxels, level.step).every(stride)
    weights = control_point_weights(fixed, moving, field, level, settings.body_weights)
    fixed_features = level_features(fixed.image, level, between_chunks)
    between_chunks()
    moving_features = level_features(_warped(moving.image, field, between_chunks), level, between_chunks)
    between_chunks()
    cost = lattice_dissimilarity(fixed_features, moving_features, stride, radius, between_chunks)
    del fixed_features, moving_features
    labels = lattice_labels(radius, cost) * level.step  # working voxels
    regularised = _by_quadratic_mean_field if level.regulariser == "quadratic" else _by_min_convolution
    mean, new_spread = regularised(cost, labels, weights, level, settings.temperature, between_chunks)
    # only a known body pulls; elsewhere the update is continued smoothly
    confidence = (weights - _AIR_WEIGHT).clamp(min=0)[None]
    update = extended(mean.permute(3, 0, 1, 2), confidence, _EXTENSION)  # (3, K_d, K_h, K_w)
    update = interpolate(update, control, half)
    if spread is not None:
        spread = interpolate(new_spread(), control, half) + sample_displaced(spread, half, update)
    return compose(update, field, half), spread


def _by_quadratic_mean_field(
    cost: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    level: LatticeLevel,
    temperature: float,
    between_chunks: Hook,
) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """Displacement (D, H, W, 3) of each control point, and what computes its variance and entropy (2, D, H, W).

    `cost` (D, H, W, L) is smoothed in place; `labels` (L, 3) and the results are in working voxels.
    """
    cost.copy_(weighted_box_mean(cost, weights))
    between_chunks()
    couplings = [coupling / FIELD_STEP**2 for coupling in level.couplings]  # per squared working voxel
    mean = quadratic_mean_field(cost, labels, weights, couplings, between_chunks)
    return mean, lambda: label_spread(cost, labels, mean, couplings[-1], temperature, between_chunks)


def _by_min_convolution(
    cost: torch.Tensor,
    labels: torch.Tensor,
    _weights: torch.Tensor,
    level: LatticeLevel,
    _temperature: float,
    between_chunks: Hook,
) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """As `_by_quadratic_mean_field`, but by the paper's two rounds, whose probabilities need no temperature."""
    width = (2 * level.reach // level.step + 1,) * 3
    probabilities = regularise(
        cost.view(*cost.shape[:3], *width) * level.scale, PUBLISHED_WEIGHTS, between_chunks=between_chunks
    )
    labels = labels.view(*width, 3)
    mean = expected_displacement(probabilities, labels)
    return mean, lambda: torch.stack(
        (displacement_covariance_diagonal(probabilities, labels).sum(-1), entropy(probabilities))
    )


def _warped(image: torch.Tensor, field: torch.Tensor, between_chunks: Hook) -> torch.Tensor:
    voxels = (image.shape[1], image.shape[2], image.shape[3])
    return warp_on(
        image, Lattice(voxels, 1, 0.0), field, Lattice.of_cells(voxels, FIELD_STEP), between_chunks
    )


def _space_to_depth(features: torch.Tensor, sub: int) -> torch.Tensor:
    channels, depth, height, width = features.shape
    blocks = features.reshape(channels, depth // sub, sub, height // sub, sub, width // sub, sub)
    blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5) / math.sqrt(sub**3)  # (C, sub, sub, sub, D', H', W')
    return blocks.reshape(channels * sub**3, depth // sub, height // sub, width // sub)


def _voxels(scan: WorkingScan) -> tuple[int, int, int]:
    _, depth, height, width = scan.image.shape
    return depth, height, width
