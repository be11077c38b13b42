"""pdd-net as it is trained: the paper's losses, its ablations, and inference on the training grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch

from pddnet.correlation import Reduction
from pddnet.errors import InputError
from pddnet.features.mind_features import MindFeatures
from pddnet.features.obelisk import OFFSET_SPREAD, Obelisk, ObeliskConfig
from pddnet.instance_optimisation import STEADY_FIT, optimise_instance
from pddnet.learning.checkpointing import features_of_both
from pddnet.learning.trainable import TrainableRegistration, TrainingPair, evaluating
from pddnet.losses import (
    diffusion,
    mind_loss,
    non_local_label_loss,
    soft_dice_loss,
    warp_holding_border,
    warped_label_loss,
)
from pddnet.network import Level, PddNet, PddNetOutput, compose_normalised, warp_normalised
from pddnet.regularisation import INITIAL_WEIGHTS, upsample_displacement
from pddnet.search import displacement_from_features, probabilities_from_features
from pddnet.strict_json import from_json

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class PddNetSettings:
    """What a pdd-net is and what it is trained with; the defaults are the paper's.

    Args:
        features: "obelisk" (learned) or "mind-ssc" (made by hand; only the regularisation is trained: "pdd+SSC").
        obelisk: sizes of the learned features.
        offset_spread: standard deviation of their sampling offsets before training, in the cube's coordinates; small
            boxes need more than the paper's, so that the offsets reach beyond the next voxel.
        control_points, labels: how many along (x, y, z).
        reach: largest displacement along (x, y, z) in the cube's coordinates: 2 is the width of the box.
        searches: what the reach is multiplied by in one search after another; each but the first sees the moving image
            warped by what was found before. The paper has one; the published script two, the second with 0.6 times the
            reach. A training step trains a random one of them.
        reduction: of the squared differences over the channels.
        mean_field: False leaves out the neighbours' averages ("w/o MF").
        supervision: "labels", or "mind" for scans without labels.
        label_loss: "non-local" (the paper's), "spatial-transformer" ("w/o NL") or "soft-dice" of warped labels.
        label_weight, mind_weight, diffusion_weight: factors of the terms of the loss.
    """

    features: Literal["obelisk", "mind-ssc"] = "obelisk"
    obelisk: ObeliskConfig = field(default_factory=ObeliskConfig)
    offset_spread: float = OFFSET_SPREAD
    control_points: Triple = (32, 32, 32)
    labels: Triple = (15, 15, 15)
    reach: tuple[float, float, float] = (0.4, 0.4, 0.4)
    searches: tuple[float, ...] = (1.0,)
    reduction: Reduction = "sum"
    mean_field: bool = True
    supervision: Literal["labels", "mind"] = "labels"
    label_loss: Literal["non-local", "spatial-transformer", "soft-dice"] = "non-local"
    label_weight: float = 1.0
    mind_weight: float = 1.0
    diffusion_weight: float = 1.5

    def __post_init__(self) -> None:
        if min(self.control_points) < 2 or min(self.labels) < 3 or any(n % 2 == 0 for n in self.labels):
            raise InputError(
                f"control_points are {self.control_points} and labels {self.labels}; needed are 2 or more control "
                "points and an odd number of 3 or more labels along each axis"
            )
        if not all(0 < reach <= 2 for reach in self.reach):
            raise InputError(f"reach is {self.reach}; three numbers above 0 and up to 2 are needed")
        if not self.searches or not all(0 < factor <= 1 for factor in self.searches):
            raise InputError(f"searches are {self.searches}; at least one factor in (0, 1] is needed")
        if not 0 <= self.offset_spread < 2:
            raise InputError(f"offset_spread is {self.offset_spread}; a number from 0 to below 2 is needed")
        weights = (self.label_weight, self.mind_weight, self.diffusion_weight)
        if min(weights) < 0:
            raise InputError(f"the terms of the loss have the weights {weights}; none may be below 0")

    @property
    def levels(self) -> tuple[Level, ...]:
        """The searches, in order."""
        points, labels = self.control_points, self.labels
        shapes = (points[2], points[1], points[0]), (labels[2], labels[1], labels[0])
        x, y, z = self.reach
        return tuple(Level(*shapes, (f * x, f * y, f * z)) for f in self.searches)


class TrainablePddNet(TrainableRegistration):
    """Features, dissimilarities of all displacements, regularisation, and the losses of the paper."""

    name: ClassVar[str] = "pdd-net"

    def __init__(self, settings: PddNetSettings) -> None:
        super().__init__()
        self.settings = settings
        learned = settings.features == "obelisk"
        features = Obelisk(settings.obelisk, settings.offset_spread) if learned else MindFeatures()
        self.network = PddNet(features, INITIAL_WEIGHTS, settings.reduction, mean_field=settings.mean_field)
        self.needs_labels = settings.supervision == "labels"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """See `TrainableRegistration`."""
        return cls(from_json(PddNetSettings, config, "the settings of pdd-net"))

    def config(self) -> dict[str, Any]:
        """See `TrainableRegistration`."""
        return asdict(self.settings)

    def losses(self, pair: TrainingPair) -> dict[str, torch.Tensor]:
        """See `TrainableRegistration`."""
        levels = self.settings.levels
        number = int(torch.randint(len(levels), ())) if len(levels) > 1 else 0
        if number:
            pair = self._warped(pair, levels[:number])
        return self._losses_of(pair, levels[number])

    def _losses_of(self, pair: TrainingPair, level: Level) -> dict[str, torch.Tensor]:
        features = features_of_both(self.network.features, pair.fixed_image, pair.moving_image)
        with torch.autocast(pair.fixed_image.device.type, enabled=False):  # all else in the images' precision
            fixed, moving = (f.to(pair.fixed_image.dtype) for f in features)
            found = self.network.search(fixed, moving, level)
            data = (
                self._label_terms(pair, found, level) if self.needs_labels else self._image_terms(pair, found)
            )
            penalty = diffusion(found.expected_displacement)
        return {**data, "diffusion": self.settings.diffusion_weight * penalty}

    @torch.no_grad()
    def displacement(
        self, fixed_image: torch.Tensor, moving_image: torch.Tensor, *, instance_optimisation: bool = False
    ) -> torch.Tensor:
        """See `TrainableRegistration`.

        Args:
            instance_optimisation: fit the displacement to this pair's probabilities after each search.
        """
        return self._found(fixed_image, moving_image, self.settings.levels, instance_optimisation)

    def _found(
        self, fixed_image: torch.Tensor, moving_image: torch.Tensor, levels: Sequence[Level], fit: bool
    ) -> torch.Tensor:
        """Search after search, in evaluation: (1, 3, D, H, W)."""
        with evaluating(self):
            fixed = self.network.features(fixed_image)
            total: torch.Tensor | None = None
            for level in levels:
                warped = moving_image if total is None else warp_normalised(moving_image, total)
                found = self._searched(fixed, self.network.features(warped), level, fit)
                here = upsample_displacement(found, fixed_image.shape[2:])
                total = here if total is None else compose_normalised(total, here)
        assert total is not None  # there is at least one search
        return total

    @torch.no_grad()
    def _warped(self, pair: TrainingPair, levels: Sequence[Level]) -> TrainingPair:
        """The pair as the search after these ones sees it."""
        found = self._found(pair.fixed_image, pair.moving_image, levels, fit=False)
        labels = pair.moving_one_hot
        return replace(
            pair,
            moving_image=warp_normalised(pair.moving_image, found),
            moving_one_hot=None if labels is None else warp_holding_border(labels, found),
        )

    def _searched(self, fixed: torch.Tensor, moving: torch.Tensor, level: Level, fit: bool) -> torch.Tensor:
        """One search on features, without gradients: (Kd, Kh, Kw, 3)."""
        network = self.network
        if not self.settings.mean_field:
            output = network.search(fixed, moving, level)
            probabilities, mean = output.probabilities, output.expected_displacement
            return optimise_instance(probabilities, mean, level.reach, STEADY_FIT) if fit else mean
        weights, on_cpu = network.regularisation.weights.numbers(), torch.empty(0, dtype=fixed.dtype)
        search = (fixed, moving, level.points(on_cpu), level.labels(on_cpu), weights)
        if not fit:
            return displacement_from_features(*search, reduction=network.reduction).displacement
        probabilities, moments = probabilities_from_features(*search, reduction=network.reduction)
        return optimise_instance(probabilities, moments.displacement, level.reach, STEADY_FIT)

    def _label_terms(self, pair: TrainingPair, found: PddNetOutput, level: Level) -> dict[str, torch.Tensor]:
        moving, fixed, weights = pair.moving_one_hot, pair.fixed_one_hot, pair.class_weights
        if moving is None or fixed is None or weights is None:
            raise InputError(
                'this pair has no labels and the loss needs them; add label maps, or set supervision = "mind"'
            )
        factor = self.settings.label_weight
        if self.settings.label_loss == "non-local":
            points = level.points(found.probabilities)
            loss = non_local_label_loss(moving, fixed, found.probabilities, points, found.labels, weights)
            return {"label": factor * loss}
        displacement = upsample_displacement(found.expected_displacement, fixed.shape[2:])
        if self.settings.label_loss == "spatial-transformer":
            return {"label": factor * warped_label_loss(moving, fixed, displacement, weights)}
        return {"dice": factor * soft_dice_loss(warp_holding_border(moving, displacement), fixed)}

    def _image_terms(self, pair: TrainingPair, found: PddNetOutput) -> dict[str, torch.Tensor]:
        displacement = upsample_displacement(found.expected_displacement, pair.fixed_image.shape[2:])
        loss = mind_loss(pair.fixed_image, pair.moving_image, displacement)
        return {"mind": self.settings.mind_weight * loss}
