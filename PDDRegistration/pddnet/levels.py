"""One level of a registration on a lattice: features, dissimilarity volume, regularisation, update of the field.

The search runs in both directions where a level is symmetric. Fields lie on the half-resolution lattice (cells of two
working voxels), in working voxels, channels (x, y, z).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from pddnet.config import LatticeLevel
from pddnet.coupling import quadratic_mean_field, smooth_in_place
from pddnet.lattice import Lattice, compose, extended, interpolate, sample_displaced, symmetrised
from pddnet.lattice_correlation import lattice_dissimilarity, lattice_labels
from pddnet.level_scan import FIELD_STEP, LevelScan
from pddnet.regularisation import (
    PUBLISHED_WEIGHTS,
    displacement_covariance_diagonal,
    entropy,
    expected_displacement,
    regularise,
)
from pddnet.sampling import block_mean
from pddnet.uncertainty import averaged_over_body, cost_spread, error_variance

Hook = Callable[[], None]

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
        spreads: of each level that was measured, (2, D, H, W): variance (working voxels squared) and entropy (nats).
        at_rest: whether both fields are still 0.
    """

    forward: torch.Tensor
    backward: torch.Tensor
    spreads: tuple[torch.Tensor, ...] = ()
    at_rest: bool = False

    @classmethod
    def zero(cls, voxels: tuple[int, int, int], device: torch.device) -> FieldPair:
        """No displacement on a working grid of `voxels` (D, H, W)."""
        shape = Lattice.of_cells(voxels, FIELD_STEP).shape
        return cls(
            torch.zeros((3, *shape), device=device), torch.zeros((3, *shape), device=device), at_rest=True
        )

    @property
    def spread(self) -> torch.Tensor:
        """Expected squared error (working voxels squared) and entropy of the last level (nats): (2, D, H, W)."""
        wide, fine = self.spreads[0], self.spreads[-1]
        return torch.stack((error_variance(wide[0], fine[0]), fine[1]))


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
    fixed: LevelScan,
    moving: LevelScan,
    fields: FieldPair,
    level: LatticeLevel,
    settings: LevelSettings,
    between_chunks: Hook,
    measured: bool = False,
) -> FieldPair:
    """Search at one level from where `fields` left off; `measured` adds the level's spread."""
    there, back = (None, None) if fields.at_rest else (fields.forward, fields.backward)
    forward, spread = _search(fixed, moving, there, level, settings, measured, between_chunks)
    backward = fields.backward
    if level.symmetric:
        backward, _ = _search(moving, fixed, back, level, settings, False, between_chunks)
        pooled_by = 2 if level.step >= 4 else 1
        forward, backward = symmetrised(
            forward, backward, fixed.half, pooled_by, between_iterations=between_chunks
        )
    return FieldPair(forward, backward, (*fields.spreads, *spread))


def control_point_weights(
    fixed: LevelScan, moving: LevelScan, field: torch.Tensor | None, level: LatticeLevel, body_weights: bool
) -> torch.Tensor:
    """How much each control point counts, (D, H, W): the share of its cell in the body that the moving scan shows.

    Air that both scans know counts 0.02; where a scan ends or is masked next to nothing counts.
    """
    control = Lattice.of_cells(fixed.voxels, level.spacing)
    known, body, shown = (
        block_mean(x, level.spacing // FIELD_STEP) for x in (fixed.known, fixed.body, moving.known)
    )
    counted = torch.maximum(body, _AIR_WEIGHT * known) if body_weights else known
    if field is not None:
        shown = sample_displaced(shown, control, interpolate(field, fixed.half, control))
    return (counted * shown)[0].clamp(min=_LEAST_WEIGHT)


def _search(
    fixed: LevelScan,
    moving: LevelScan,
    field: torch.Tensor | None,
    level: LatticeLevel,
    settings: LevelSettings,
    measured: bool,
    between_chunks: Hook,
) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
    """One direction: the composed field, and the level's spread if it is measured. `field` None is no displacement."""
    stride, radius = level.spacing // level.step, level.reach // level.step
    control = Lattice.of_cells(fixed.voxels, level.step).every(stride)
    weights = control_point_weights(fixed, moving, field, level, settings.body_weights)
    points = fixed.point_features(level, between_chunks)
    cells = moving.features(level, field, between_chunks)
    cost = lattice_dissimilarity(points, cells, stride, radius, between_chunks)  # (K_d, K_h, K_w, L)
    del points, cells
    labels = lattice_labels(radius, cost) * level.step  # working voxels
    regularised = _by_quadratic_mean_field if level.regulariser == "quadratic" else _by_min_convolution
    mean, spread = regularised(cost, labels, weights, level, settings.temperature, measured, between_chunks)
    # only a known body pulls; elsewhere the update is continued smoothly
    confidence = (weights - _AIR_WEIGHT).clamp(min=0)[None]
    update = extended(mean.permute(3, 0, 1, 2), confidence, _EXTENSION)  # (3, K_d, K_h, K_w)
    update = interpolate(update, control, fixed.half)
    spread = [
        interpolate(averaged_over_body(open_, weights, level.spacing), control, fixed.half)
        for open_ in spread
    ]
    return (update if field is None else compose(update, field, fixed.half)), spread


def _by_quadratic_mean_field(
    cost: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    level: LatticeLevel,
    temperature: float,
    measured: bool,
    between_chunks: Hook,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Displacement (D, H, W, 3) of each control point, and if `measured` its variance and entropy (2, D, H, W).

    `cost` (D, H, W, L) is smoothed in place; `labels` (L, 3) and the results are in working voxels.
    """
    smooth_in_place(cost, weights, between_chunks)
    couplings = [coupling / FIELD_STEP**2 for coupling in level.couplings]  # per squared working voxel
    mean = quadratic_mean_field(cost, labels, weights, couplings, between_chunks, level.means)
    return mean, [cost_spread(cost, labels, temperature, between_chunks)] if measured else []


def _by_min_convolution(
    cost: torch.Tensor,
    labels: torch.Tensor,
    _weights: torch.Tensor,
    level: LatticeLevel,
    _temperature: float,
    measured: bool,
    between_chunks: Hook,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """As `_by_quadratic_mean_field`, but by the paper's two rounds, whose probabilities need no temperature."""
    width = (2 * level.reach // level.step + 1,) * 3
    probabilities = regularise(
        cost.view(*cost.shape[:3], *width) * level.scale, PUBLISHED_WEIGHTS, between_chunks=between_chunks
    )
    labels = labels.view(*width, 3)
    mean = expected_displacement(probabilities, labels)
    if not measured:
        return mean, []
    variance = displacement_covariance_diagonal(probabilities, labels).sum(-1)
    return mean, [torch.stack((variance, entropy(probabilities)))]
