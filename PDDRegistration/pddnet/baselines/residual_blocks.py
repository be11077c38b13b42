"""The residual blocks of Label-Reg's two networks.

Source: Hu et al., Medical Image Analysis 49 (2018), the description of the network. Values are (1, C, D, H, W) of any
size: what halves rounds up, and what doubles comes back to the size of the layer it is added to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pddnet.errors import InputError


class ConvolutionBlock(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(),
        )


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions of the same width; the input is added before the last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvolutionBlock(channels, channels)
        self.second = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.normalise = nn.BatchNorm3d(channels)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(1, C, D, H, W), the same shape again."""
        return F.relu(values + self.normalise(self.second(self.first(values))))


class Encoder(nn.Module):
    """Residual blocks, each followed by max pooling, the width doubled each time; then one convolution more."""

    def __init__(self, inputs: int, channels: int, levels: int) -> None:
        super().__init__()
        widths = level_widths(channels, levels)
        before = (inputs, *widths[:-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                ConvolutionBlock(before[n], widths[n], kernel=7 if n == 0 else 3), ResidualBlock(widths[n])
            )
            for n in range(levels)
        )
        self.deepest = ConvolutionBlock(widths[levels - 1], widths[levels])

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What each level gives before it is pooled, finest first, the deepest convolution's output last."""
        found: list[torch.Tensor] = []
        values = images
        for block in self.blocks:
            found.append(block(values))
            values = F.max_pool3d(found[-1], 2, ceil_mode=True)
        return [*found, self.deepest(values)]


class UpsamplingBlock(nn.Module):
    """Transposed convolution plus additive upsampling, the finer level added, a residual block: half the channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        outputs = inputs // 2
        self.transposed = nn.ConvTranspose3d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.normalise = nn.BatchNorm3d(outputs)
        self.residual = ResidualBlock(outputs)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """(1, C, d, h, w) and (1, C / 2, D, H, W) to the shape of the second."""
        learned = self.transposed(coarse, output_size=fine.shape[2:])
        added = additive_upsampling(coarse, fine.shape[2:])
        residual: torch.Tensor = self.residual(F.relu(self.normalise(learned)) + added + fine)
        return residual


def additive_upsampling(values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Trilinear interpolation to `shape`, then the sum of the first and the second half of the channels."""
    larger = F.interpolate(values, size=tuple(shape), mode="trilinear", align_corners=True)
    first, second = larger.chunk(2, dim=1)
    return first + second


def level_widths(channels: int, levels: int) -> list[int]:
    """Channels of each level and of the deepest convolution: doubled each time."""
    return [channels * 2**n for n in range(levels + 1)]


def check_depth(images: torch.Tensor, levels: int) -> None:
    """Raise InputError where images (1, C, D, H, W) are too small for so many halvings: batch norm needs two voxels."""
    deepest = [-(-n // 2**levels) for n in images.shape[2:]]
    if torch.Size(deepest).numel() < 2:
        raise InputError(
            f"images of {tuple(images.shape[2:])} voxels have one voxel left after {levels} halvings; "
            "lower levels or take larger images"
        )
