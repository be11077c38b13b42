"""FlowNet-C in 3-D, as the paper compares with it: Obelisk features, dense correlation, trained regularisation.

Source: Heinrich, MICCAI 2019, section 3: "Obelisk feature extraction, a dense correlation layer and a regularisation
network that has 3375 input channels, comprises five 3D conv. layers with batch-norm and PReLU. It has 2 million weights
and outputs a (non-probabilistic) 3D displacement field"; and "a semantic segmentation loss to the intermediate output
of the Obelisk layers". The idea: Dosovitskiy et al., FlowNet, ICCV 2015. What the paper leaves open is ours: one 1x1x1
convolution that mixes the labels, three of 3x3x3, a last one of 3x3x3 that gives the displacement and has therefore
neither batch norm nor PReLU; labels carried by a spatial transformer, compared by the weighted mean squared difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn

from pddnet.baselines.supervision import check_pair
from pddnet.correlation import dissimilarity_volume
from pddnet.errors import InputError
from pddnet.features.obelisk import Obelisk, ObeliskConfig
from pddnet.learning.trainable import TrainableRegistration, TrainingPair, evaluating
from pddnet.losses import warp_holding_border
from pddnet.network import PAPER_LEVEL, Level
from pddnet.regularisation import diffusion, upsample_displacement
from pddnet.strict_json import from_json, to_json

_FIRST_STEP = 0.1  # how far the last layer's first weights are shrunk: the displacements begin near 0


@dataclass(frozen=True)
class FlowNetCConfig:
    """All settings of the network and its losses.

    Args:
        classes: of the auxiliary segmentation, background included.
        features: sizes of the feature network.
        level: control points, displacement labels (the correlation's channels) and reach.
        channels: what the first four convolutions of the regularisation network give.
        diffusion_weight: of the diffusion regularisation of the control points' displacements.
        segmentation_weight: of the cross-entropy of the labels told from the features, mean of both scans.

    Raises:
        InputError: fewer than two classes, a width below 1, a negative or infinite weight.
    """

    classes: int = 10
    features: ObeliskConfig = field(default_factory=ObeliskConfig)
    level: Level = PAPER_LEVEL
    channels: tuple[int, int, int, int] = (256, 128, 64, 32)
    diffusion_weight: float = 1.5
    segmentation_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.classes < 2 or min(self.channels) < 1:
            raise InputError(
                f"classes is {self.classes} and channels are {self.channels}; "
                "at least 2 classes (background included) and 1 channel a layer are needed"
            )
        for name in ("diffusion_weight", "segmentation_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; a number from 0 is needed")


class RegularisationNetwork(nn.Sequential):
    """Five 3-D convolutions: dissimilarities (1, labels, Kd, Kh, Kw) to displacements in reaches (1, 3, Kd, Kh, Kw)."""

    def __init__(self, labels: int, channels: tuple[int, int, int, int]) -> None:
        widths = (labels, *channels)
        layers: list[nn.Module] = []
        for number in range(len(channels)):
            kernel = 1 if number == 0 else 3
            convolution = nn.Conv3d(
                widths[number], widths[number + 1], kernel, padding=kernel // 2, bias=False
            )
            layers += [convolution, nn.BatchNorm3d(widths[number + 1]), nn.PReLU(widths[number + 1])]
        last = nn.Conv3d(widths[-1], 3, 3, padding=1)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(_FIRST_STEP)
        super().__init__(*layers, last)


class FlowNetC(TrainableRegistration):
    """FlowNet-C in 3-D; needs labels to train."""

    name: ClassVar[str] = "flownet-c"

    def __init__(self, config: FlowNetCConfig) -> None:
        super().__init__()
        self.settings = config
        labels = torch.Size(config.level.label_shape).numel()
        self.features = Obelisk(config.features)
        self.regularisation = RegularisationNetwork(labels, config.channels)
        self.segmentation = nn.Conv3d(config.features.channels, config.classes, 1)

    def forward(self, fixed_image: torch.Tensor, moving_image: torch.Tensor) -> torch.Tensor:
        """Displacements of the control points (Kd, Kh, Kw, 3), normalised, of images (1, 1, D, H, W)."""
        return self._search(self.features(fixed_image), self.features(moving_image))

    def losses(self, pair: TrainingPair) -> dict[str, torch.Tensor]:
        """`label`, `diffusion` and `segmentation`; see `TrainableRegistration.losses`."""
        labelled = check_pair(pair, self.name, self.settings.classes)
        fixed_features, moving_features = self.features(pair.fixed_image), self.features(pair.moving_image)
        displacement = self._search(fixed_features, moving_features)
        on_image = upsample_displacement(displacement, pair.fixed_image.shape[2:])
        carried = warp_holding_border(labelled.moving.to(on_image.dtype), on_image)
        weights = labelled.weights.to(carried)[:, None, None, None]
        told = [
            segmentation_loss(self.segmentation(features), one_hot, labelled.weights)
            for features, one_hot in (
                (fixed_features, labelled.fixed),
                (moving_features, labelled.moving),
            )
        ]
        return {
            "label": ((carried - labelled.fixed).square() * weights).mean(),
            "diffusion": self.settings.diffusion_weight * diffusion(displacement),
            "segmentation": self.settings.segmentation_weight * torch.stack(told).mean(),
        }

    @torch.no_grad()
    def displacement(self, fixed_image: torch.Tensor, moving_image: torch.Tensor) -> torch.Tensor:
        """See `TrainableRegistration.displacement`."""
        with evaluating(self):
            return upsample_displacement(self(fixed_image, moving_image), fixed_image.shape[2:])

    def config(self) -> dict[str, Any]:
        """See `TrainableRegistration.config`."""
        settings: dict[str, Any] = to_json(self.settings)
        return settings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """See `TrainableRegistration.from_config`; the settings are those of `FlowNetCConfig`."""
        return cls(from_json(FlowNetCConfig, config, cls.name))

    def _search(self, fixed_features: torch.Tensor, moving_features: torch.Tensor) -> torch.Tensor:
        level = self.settings.level
        on_cpu = torch.empty(0, dtype=fixed_features.dtype)
        volume = dissimilarity_volume(
            fixed_features, moving_features, level.points(on_cpu), level.labels(on_cpu), reduction="mean"
        )
        channels = volume.flatten(3).permute(3, 0, 1, 2)[None]  # (1, labels, Kd, Kh, Kw)
        found = self.regularisation(channels)[0].permute(1, 2, 3, 0)  # (Kd, Kh, Kw, 3)
        displacement: torch.Tensor = found * torch.tensor(level.reach).to(found)
        return displacement


def segmentation_loss(logits: torch.Tensor, one_hot: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy of features' classes (1, N, d, h, w) and the shares of the labels (1, N, D, H, W) there.

    The features' voxels are cells of the image, as `Obelisk` samples it; a cell's target is its labels' mean.
    """
    depth, height, width = logits.shape[2:]
    shares = F.adaptive_avg_pool3d(one_hot, (depth, height, width))
    return F.cross_entropy(logits, shares, weights.to(logits))
