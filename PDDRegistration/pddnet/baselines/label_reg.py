"""Label-Reg: a network for the affine part, one for local displacements, trained with labels alone.

Source: Hu et al., "Weakly-supervised convolutional neural networks for multimodal image registration", Medical Image
Analysis 49 (2018); the combination of both networks: Hu et al., "Label-driven weakly-supervised learning for
multimodal deformable image registration", ISBI 2018. From these descriptions: encoder and decoder of residual blocks
with additive skip connections, a local displacement that is the sum of what every level of the decoder gives, one
randomly drawn label in each step, soft Dice on several scales, bending energy with weight 0.5.

Ours: the global displacement follows the local one exactly (the paper's code adds the two); the affine part is told
from deep features pooled to 4^3 cells, so that one network takes any grid; 16 channels, as Heinrich (MICCAI 2019) used
it, instead of 32; one pair in each step instead of four.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import nn

from pddnet.baselines.multi_scale_dice import SCALES, multi_scale_dice
from pddnet.baselines.residual_blocks import Encoder, UpsamplingBlock, check_depth, level_widths
from pddnet.baselines.smoothness import bending_energy, gradient_energy
from pddnet.baselines.supervision import check_pair, sampled
from pddnet.correlation import displaced_positions
from pddnet.errors import InputError
from pddnet.learning.trainable import TrainableRegistration, TrainingPair, evaluating
from pddnet.losses import warp_holding_border
from pddnet.strict_json import from_json, to_json

_AFFINE_CELLS = 4
_FIRST_STEP = 1e-3  # standard deviation of the first weights of what gives displacements


@dataclass(frozen=True)
class LabelRegConfig:
    """All settings of the networks and their losses.

    Args:
        channels: of the local network's first level; each of the deeper levels doubles them.
        global_channels: the same of the global network.
        levels: halvings of the resolution.
        scales: standard deviations of the filters of the multi-scale Dice, voxels.
        labels: "one" draws a label for each step, as published; "all" takes the mean of those in both scans.
        smoothness: of the whole displacement in voxels: bending energy, or squared gradients.
        smoothness_weight: its weight.

    Raises:
        InputError: a size below 1, no or a negative scale, a negative or infinite weight.
    """

    channels: int = 16
    global_channels: int = 8
    levels: int = 4
    scales: tuple[float, ...] = SCALES
    labels: Literal["one", "all"] = "one"
    smoothness: Literal["bending", "gradient"] = "bending"
    smoothness_weight: float = 0.5

    def __post_init__(self) -> None:
        sizes = (self.channels, self.global_channels, self.levels)
        if min(sizes) < 1:
            raise InputError(f"channels, global_channels and levels are {sizes}; at least 1 each is needed")
        if not self.scales or not all(0 <= s < math.inf for s in self.scales):
            raise InputError(f"scales are {self.scales}; at least one, none of them negative, is needed")
        if not 0 <= self.smoothness_weight < math.inf:
            raise InputError(f"smoothness_weight is {self.smoothness_weight}; a number from 0 is needed")


class GlobalNetwork(nn.Module):
    """Both images (1, 2, D, H, W) to an affine map (3, 4) of normalised fixed points to moving points."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.encoder = Encoder(2, channels, levels)
        self.affine = nn.Linear(level_widths(channels, levels)[-1] * _AFFINE_CELLS**3, 12)
        nn.init.normal_(self.affine.weight, std=_FIRST_STEP)
        nn.init.zeros_(self.affine.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class; what is learned is the difference to the identity."""
        cells = F.adaptive_avg_pool3d(self.encoder(images)[-1], _AFFINE_CELLS)
        # the mean over cells, not their sum: a step of Adam would otherwise throw the image out of the grid
        difference: torch.Tensor = self.affine(cells.flatten()) / _AFFINE_CELLS**3
        return torch.eye(3, 4).to(cells) + difference.view(3, 4)


class LocalNetwork(nn.Module):
    """Both images (1, 2, D, H, W) to a displacement (1, 3, D, H, W) in voxels (x, y, z)."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.encoder = Encoder(2, channels, levels)
        widths = level_widths(channels, levels)
        self.ups = nn.ModuleList(UpsamplingBlock(width) for width in reversed(widths[1:]))
        self.summands = nn.ModuleList(_small_convolution(width) for width in reversed(widths))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        *fine, values = self.encoder(images)
        total = self._summand(0, values, images)
        for number, (up, skip) in enumerate(zip(self.ups, reversed(fine), strict=True), start=1):
            values = up(values, skip)
            total = total + self._summand(number, values, images)
        return total

    def _summand(self, number: int, values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.summands[number](values)
        return F.interpolate(found, size=images.shape[2:], mode="trilinear", align_corners=True)


class LabelReg(TrainableRegistration):
    """Label-Reg with both networks; needs labels to train."""

    name: ClassVar[str] = "label-reg"

    def __init__(self, config: LabelRegConfig) -> None:
        super().__init__()
        self.settings = config
        self.global_network = GlobalNetwork(config.global_channels, config.levels)
        self.local_network = LocalNetwork(config.channels, config.levels)

    def forward(self, fixed_image: torch.Tensor, moving_image: torch.Tensor) -> torch.Tensor:
        """Displacement (1, 3, D, H, W), normalised (x, y, z), of images (1, 1, D, H, W), with gradients."""
        if fixed_image.shape != moving_image.shape:
            raise InputError(
                f"fixed_image has shape {tuple(fixed_image.shape)}, moving_image {tuple(moving_image.shape)}; "
                "images on one grid are needed"
            )
        check_depth(fixed_image, self.settings.levels)
        affine = self.global_network(torch.cat((fixed_image, moving_image), 1))
        rest = displaced_positions(torch.zeros_like(fixed_image).expand(-1, 3, -1, -1, -1))
        placed = sampled(moving_image, transformed(affine, rest))
        local = self.local_network(torch.cat((fixed_image, placed), 1)) * voxel_in_cube(fixed_image)
        # first the local displacement, then the affine map
        moved = transformed(affine, displaced_positions(local))
        return (moved - rest).permute(0, 4, 1, 2, 3)

    def losses(self, pair: TrainingPair) -> dict[str, torch.Tensor]:
        """`label` and `smoothness`; see `TrainableRegistration.losses`. `class_weights` play no part."""
        labels = check_pair(pair, self.name)
        chosen = self.chosen(labels.fixed, labels.moving)
        displacement = self(pair.fixed_image, pair.moving_image)
        carried = warp_holding_border(labels.moving[:, chosen].to(displacement.dtype), displacement)
        dice = multi_scale_dice(labels.fixed[:, chosen].to(carried), carried, self.settings.scales)
        energy = bending_energy if self.settings.smoothness == "bending" else gradient_energy
        voxels = displacement / voxel_in_cube(displacement)
        return {
            "label": 1 - dice.mean(),
            "smoothness": self.settings.smoothness_weight * energy(voxels),
        }

    @torch.no_grad()
    def displacement(self, fixed_image: torch.Tensor, moving_image: torch.Tensor) -> torch.Tensor:
        """See `TrainableRegistration.displacement`."""
        with evaluating(self):
            found: torch.Tensor = self(fixed_image, moving_image)
        return found

    def config(self) -> dict[str, Any]:
        """See `TrainableRegistration.config`."""
        settings: dict[str, Any] = to_json(self.settings)
        return settings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """See `TrainableRegistration.from_config`; the settings are those of `LabelRegConfig`."""
        return cls(from_json(LabelRegConfig, config, cls.name))

    def chosen(self, fixed_one_hot: torch.Tensor, moving_one_hot: torch.Tensor) -> torch.Tensor:
        """The classes that count in this step, (n,): all that both (1, N, D, H, W) have, or one of them drawn.

        The background never does. Raises InputError where the two share none.
        """
        both = [one_hot[0, 1:].flatten(1).sum(1) > 0 for one_hot in (fixed_one_hot, moving_one_hot)]
        there = (both[0] & both[1]).nonzero().flatten() + 1
        if len(there) == 0:
            raise InputError("the two scans share no label; label-reg learns from labels that both have")
        if self.settings.labels == "all":
            return there
        drawn = int(torch.randint(len(there), ()))
        return there[drawn : drawn + 1]


def _small_convolution(inputs: int) -> nn.Conv3d:
    """To displacements that begin near 0."""
    convolution = nn.Conv3d(inputs, 3, 3, padding=1)
    nn.init.normal_(convolution.weight, std=_FIRST_STEP)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def transformed(affine: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Points (..., 3) through an affine map (3, 4)."""
    return points @ affine[:, :3].T + affine[:, 3]


def voxel_in_cube(like: torch.Tensor) -> torch.Tensor:
    """The size of a voxel of a grid (1, C, D, H, W) in normalised coordinates, (1, 3, 1, 1, 1) as x, y, z."""
    size = torch.tensor(like.shape[:1:-1], dtype=like.dtype, device=like.device)
    return (2 / (size - 1)).view(1, 3, 1, 1, 1)
