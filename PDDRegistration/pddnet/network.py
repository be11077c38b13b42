"""PDD-Net: features, dissimilarities of all displacements, regularisation; and the two-warp inference.

Images are (1, 1, D, H, W); displacements are normalised, (-1, 1) between the centres of the first and last
voxels, and written (x, y, z): fixed point plus displacement is the moving point. Source: Heinrich, MICCAI
2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from pddnet.all_cores import Hook
from pddnet.correlation import (
    Reduction,
    Shape,
    control_points,
    displaced_positions,
    displacement_labels,
    dissimilarity_volume,
)
from pddnet.errors import InputError
from pddnet.features.mind_features import MindFeatures
from pddnet.features.obelisk import Obelisk, ObeliskConfig
from pddnet.instance_optimisation import PUBLISHED_FIT, InstanceOptimisation, optimise_instance
from pddnet.regularisation import (
    INITIAL_WEIGHTS,
    Regularisation,
    RegularisationWeights,
    expected_displacement,
    upsample_displacement,
)
from pddnet.search import displacement_from_features, probabilities_from_features


@dataclass(frozen=True)
class Level:
    """One search: how many control points, and which displacements each may take.

    Args:
        grid_shape: control points (Kd, Kh, Kw).
        label_shape: displacement labels (Ld, Lh, Lw).
        reach: largest displacement, normalised (x, y, z).
    """

    grid_shape: Shape
    label_shape: Shape
    reach: tuple[float, float, float]

    @classmethod
    def cubic(cls, points: int, labels: int, reach: float) -> Level:
        """The same number of points and labels and the same reach along each axis, as in the paper."""
        return cls((points,) * 3, (labels,) * 3, (reach,) * 3)

    def points(self, like: torch.Tensor) -> torch.Tensor:
        """Control points (Kd, Kh, Kw, 3) of the type and on the device of `like`."""
        return control_points(self.grid_shape, dtype=like.dtype, device=like.device)

    def labels(self, like: torch.Tensor) -> torch.Tensor:
        """Displacement labels (Ld, Lh, Lw, 3) of the type and on the device of `like`."""
        return displacement_labels(self.label_shape, self.reach, dtype=like.dtype, device=like.device)


PAPER_LEVEL = Level.cubic(32, 15, 0.4)
PUBLISHED_LEVELS = (Level.cubic(29, 11, 0.25), Level.cubic(39, 11, 0.15))


@dataclass(frozen=True)
class PddNetOutput:
    """What one forward pass finds on the control grid.

    Args:
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw), the sum over the labels is 1.
        expected_displacement: (Kd, Kh, Kw, 3), normalised (x, y, z).
        labels: (Ld, Lh, Lw, 3), the displacements the probabilities are of.
        dissimilarity: what the probabilities were made from, where it was asked for.
    """

    probabilities: torch.Tensor
    expected_displacement: torch.Tensor
    labels: torch.Tensor
    dissimilarity: torch.Tensor | None = None


class PddNet(nn.Module):
    """The trainable network: the same features for both images, and the six weights of the regularisation.

    Args:
        features: learned ones, or their sizes, or hand-made ones.
        weights: of the regularisation, to begin with.
        reduction: of the squared differences of the features.
        mean_field: False leaves out what neighbouring control points say to each other.
    """

    def __init__(
        self,
        features: ObeliskConfig | Obelisk | MindFeatures,
        weights: RegularisationWeights = INITIAL_WEIGHTS,
        reduction: Reduction = "sum",
        *,
        mean_field: bool = True,
    ) -> None:
        super().__init__()
        self.features = Obelisk(features) if isinstance(features, ObeliskConfig) else features
        self.regularisation = Regularisation(weights, mean_field=mean_field)
        self.reduction: Reduction = reduction

    def forward(
        self,
        fixed_image: torch.Tensor,
        moving_image: torch.Tensor,
        level: Level = PAPER_LEVEL,
        *,
        keep_dissimilarity: bool = False,
        between_chunks: Hook | None = None,
    ) -> PddNetOutput:
        """Probabilities and expected displacement of images (1, 1, D, H, W), scaled as the weights expect."""
        fixed_features = self.features(fixed_image, between_chunks)
        moving_features = self.features(moving_image, between_chunks)
        return self.search(
            fixed_features,
            moving_features,
            level,
            keep_dissimilarity=keep_dissimilarity,
            between_chunks=between_chunks,
        )

    def search(
        self,
        fixed_features: torch.Tensor,
        moving_features: torch.Tensor,
        level: Level,
        *,
        keep_dissimilarity: bool = False,
        between_chunks: Hook | None = None,
    ) -> PddNetOutput:
        """The part of `forward` after the features, (1, C, D, H, W) each."""
        labels = level.labels(fixed_features)
        dissimilarity = dissimilarity_volume(
            fixed_features,
            moving_features,
            level.points(fixed_features),
            labels,
            reduction=self.reduction,
            between_chunks=between_chunks,
        )
        probabilities = self.regularisation(dissimilarity, between_chunks)
        mean = expected_displacement(probabilities, labels)
        return PddNetOutput(probabilities, mean, labels, dissimilarity if keep_dissimilarity else None)


@dataclass(frozen=True)
class LevelSummary:
    """What remains of one level, all on its control grid, normalised (x, y, z).

    Args:
        level: the search it came from.
        expected_displacement: (Kd, Kh, Kw, 3), from the probabilities alone.
        displacement: (Kd, Kh, Kw, 3), after the instance optimisation.
        variance: (Kd, Kh, Kw, 3), diagonal of the covariance of the probabilities.
        entropy: (Kd, Kh, Kw), nats.
    """

    level: Level
    expected_displacement: torch.Tensor
    displacement: torch.Tensor
    variance: torch.Tensor
    entropy: torch.Tensor


@dataclass(frozen=True)
class WarpedInference:
    """A displacement (1, 3, D, H, W), normalised (x, y, z), fixed to moving, and its levels in order."""

    displacement: torch.Tensor
    levels: tuple[LevelSummary, ...]


@torch.no_grad()
def infer_with_warps(
    network: PddNet,
    fixed_image: torch.Tensor,
    moving_image: torch.Tensor,
    levels: Sequence[Level] = PUBLISHED_LEVELS,
    *,
    optimisation: InstanceOptimisation | None = PUBLISHED_FIT,
    on_stage: Callable[[str], None] | None = None,
    between_chunks: Hook | None = None,
) -> WarpedInference:
    """The published inference: search, fit, warp the moving image, search again on a finer grid, compose.

    Args:
        network: in eval mode, on the device of the images.
        fixed_image, moving_image: (1, 1, D, H, W) of the same shape, intensities as the weights expect them
            (published: HU / 500).
        levels: the searches, coarse to fine.
        optimisation: how the displacement is fitted to the probabilities; None takes their expectation.
        on_stage: told in words what begins.
        between_chunks: called between pieces of work; what it raises ends the computation.

    Raises:
        InputError: images of different shapes, or no level.
    """
    if fixed_image.shape != moving_image.shape or not levels:
        raise InputError(
            f"fixed_image has shape {tuple(fixed_image.shape)}, moving_image {tuple(moving_image.shape)}, "
            f"and there are {len(levels)} levels; images on one grid and at least one level are needed"
        )
    tell = on_stage if on_stage is not None else _say_nothing
    shape = fixed_image.shape[2:]
    weights = network.regularisation.weights.numbers()
    tell("features of the fixed image")
    fixed_features = network.features(fixed_image, between_chunks)
    summaries: list[LevelSummary] = []
    displacement = fixed_image.new_zeros((1, 3, *shape))
    for number, level in enumerate(levels, start=1):
        tell(f"level {number} of {len(levels)}")
        warped = warp_normalised(moving_image, displacement) if summaries else moving_image
        moving_features = network.features(warped, between_chunks)
        summary = _run_level(
            fixed_features, moving_features, level, weights, network.reduction, optimisation, between_chunks
        )
        found = upsample_displacement(summary.displacement, shape)
        displacement = compose_normalised(displacement, found) if summaries else found
        summaries.append(summary)
    return WarpedInference(displacement, tuple(summaries))


def warp_normalised(volume: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Values (B, C, D, H, W) at the displaced positions of their own grid, linear, 0 outside, as published.

    Args:
        volume: (B, C, D, H, W).
        displacement: (B, 3, D, H, W), normalised, channels (x, y, z).
    """
    return F.grid_sample(volume, displaced_positions(displacement), align_corners=True)


def compose_normalised(first_found: torch.Tensor, then_found: torch.Tensor) -> torch.Tensor:
    """One displacement for two searches: the second looked for the first's warped image.

    Both (B, 3, D, H, W), normalised: total(x) = then(x) + first(x + then(x)).
    """
    return warp_normalised(first_found, then_found) + then_found


def _run_level(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    level: Level,
    weights: RegularisationWeights,
    reduction: Reduction,
    optimisation: InstanceOptimisation | None,
    between_chunks: Hook | None,
) -> LevelSummary:
    on_cpu = torch.empty(0, dtype=fixed_features.dtype)
    search = (fixed_features, moving_features, level.points(on_cpu), level.labels(on_cpu), weights)
    if optimisation is None:
        found = displacement_from_features(*search, reduction=reduction, between_chunks=between_chunks)
        displacement = found.displacement
    else:
        probabilities, found = probabilities_from_features(
            *search, reduction=reduction, between_chunks=between_chunks
        )
        displacement = optimise_instance(
            probabilities, found.displacement, level.reach, optimisation, between_chunks=between_chunks
        )
    return LevelSummary(level, found.displacement, displacement, found.variance, found.entropy)


def _say_nothing(_: str) -> None:
    """Nobody asked to be told."""
