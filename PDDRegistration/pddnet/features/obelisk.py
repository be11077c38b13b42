"""Obelisk: 3D convolution with few, trainable, far-reaching offsets; features at a third of the resolution.

Average pool, 5x5x5 convolution, differences of samples at two sets of trainable offsets, then 1x1x1, 3x3x3
and 1x1x1 convolutions. Source: Heinrich, Oktay, Bouteldja, Medical Image Analysis 54 (2019); Heinrich, MICCAI
2019, section 2.1. Parameter names are those of the published weights (github.com/multimodallearning/pdd_net),
which load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from pddnet.errors import InputError

AxisOrder = Literal["zyx", "xyz"]
STRIDE = 3
OFFSET_SPREAD = 0.05  # standard deviation of the offsets before training, in the cube's coordinates

_SAMPLES_IN_FLIGHT = 2**24

_NORMALISATIONS = ("batch0", "batch1", "batch2")


@dataclass(frozen=True)
class ObeliskConfig:
    """What decides the shapes of the network.

    Args:
        channels: features per voxel.
        offsets: sampling positions in each of the two sets (the paper's 64, the published weights' 48).
        hidden: channels between the last three convolutions.
        groups: groups of the first 1x1x1 convolution; 1 mixes all samples.
        edge_channels: channels of the 5x5x5 convolution.
        axis_order: order of the array axes the weights were trained on. "zyx" is ours, (D, H, W); "xyz" is
            that of the published weights, which saw arrays as nibabel reads them.

    Raises:
        InputError: a count below 1, or groups that divide neither side of the convolution.
    """

    channels: int = 16
    offsets: int = 64
    hidden: int = 64
    groups: int = 1
    edge_channels: int = 4
    axis_order: AxisOrder = "zyx"

    def __post_init__(self) -> None:
        counts = (self.channels, self.offsets, self.hidden, self.groups, self.edge_channels)
        if not all(isinstance(n, int) and n > 0 for n in counts):
            raise InputError(f"Obelisk sizes are {counts}; positive whole numbers are needed")
        if self.edge_channels % self.groups or self.hidden % self.groups:
            raise InputError(
                f"groups is {self.groups}; a divisor of edge_channels {self.edge_channels} "
                f"and of hidden {self.hidden} is needed"
            )
        if self.axis_order not in ("zyx", "xyz"):
            raise InputError(f"axis_order is {self.axis_order!r}; 'zyx' or 'xyz' is needed")


class Obelisk(nn.Module):
    """The feature network: image (B, 1, D, H, W) to features (B, channels, D // 3, H // 3, W // 3).

    Arrays go in and come out as (D, H, W) = (z, y, x) whatever `config.axis_order` says.

    Args:
        config: sizes.
        offset_spread: standard deviation of the offsets before training, in the cube's coordinates.
    """

    def __init__(self, config: ObeliskConfig, offset_spread: float = OFFSET_SPREAD) -> None:
        super().__init__()
        self.config = config
        self.offsets = nn.Parameter(torch.randn(2, config.offsets, 3) * offset_spread)
        self.layer0 = nn.Conv3d(1, config.edge_channels, 5, stride=2, padding=2, bias=False)
        self.batch0 = nn.BatchNorm3d(config.edge_channels)
        samples = config.edge_channels * config.offsets
        self.layer1 = nn.Conv3d(samples, config.hidden, 1, groups=config.groups, bias=False)
        self.batch1 = nn.BatchNorm3d(config.hidden)
        self.layer2 = nn.Conv3d(config.hidden, config.hidden, 3, padding=1, bias=False)
        self.batch2 = nn.BatchNorm3d(config.hidden)
        self.layer3 = nn.Conv3d(config.hidden, config.channels, 1)

    def forward(self, image: torch.Tensor, between_chunks: Callable[[], None] | None = None) -> torch.Tensor:
        """Features of an image (B, 1, D, H, W); see the class."""
        shape = feature_shape(image)
        if self.config.axis_order == "xyz":
            return reverse_axes(
                self._features(reverse_axes(image), (shape[2], shape[1], shape[0]), between_chunks)
            )
        return self._features(image, shape, between_chunks)

    def _features(
        self, image: torch.Tensor, shape: tuple[int, int, int], between_chunks: Callable[[], None] | None
    ) -> torch.Tensor:
        pooled = F.avg_pool3d(image, 3, stride=2, padding=1)
        edges = F.relu(self.batch0(self.layer0(pooled)))
        hidden = F.relu(self.batch1(self._sampled_convolution(edges, shape, between_chunks)))
        hidden = F.relu(self.batch2(self.layer2(hidden)))
        features: torch.Tensor = self.layer3(hidden)
        return features

    def _sampled_convolution(
        self, edges: torch.Tensor, shape: tuple[int, int, int], between_chunks: Callable[[], None] | None
    ) -> torch.Tensor:
        """`layer1` of the differences of samples, a few offsets at a time: (B, hidden, *shape).

        Where it takes several times, the samples are computed again for the gradient instead of being kept.
        """
        weight = self.layer1.weight.view(self.config.hidden, -1, self.config.offsets)
        samples = 2 * edges.shape[:2].numel() * shape[0] * shape[1] * shape[2]  # of one pair of offsets
        step = max(1, _SAMPLES_IN_FLIGHT // samples)
        total = edges.new_zeros(())
        for start in range(0, self.config.offsets, step):
            if between_chunks is not None:
                between_chunks()
            here = slice(start, start + step)
            chunk = (edges, self.offsets[:, here], weight[:, :, here], shape, self.config.groups)
            if torch.is_grad_enabled() and step < self.config.offsets:
                total = total + checkpoint(_mixed_differences, *chunk, use_reentrant=False)
            else:
                total = total + _mixed_differences(*chunk)
        return total


def feature_shape(image: torch.Tensor) -> tuple[int, int, int]:
    """Shape (D // 3, H // 3, W // 3) of the features of an image (B, 1, D, H, W)."""
    if image.ndim != 5 or image.shape[1] != 1 or min(image.shape[2:]) < STRIDE:
        raise InputError(
            f"image has shape {tuple(image.shape)}; (B, 1, D, H, W) with at least 3 voxels an axis is needed"
        )
    depth, height, width = (n // STRIDE for n in image.shape[2:])
    return depth, height, width


def reverse_axes(volume: torch.Tensor) -> torch.Tensor:
    """(B, C, D, H, W) = (z, y, x) to the published order (B, C, x, y, z), and back: it is its own inverse."""
    return volume.permute(0, 1, 4, 3, 2)


def infer_config(state: Mapping[str, torch.Tensor], axis_order: AxisOrder = "xyz") -> ObeliskConfig:
    """The configuration whose parameters have exactly the names and shapes of `state`.

    Args:
        state: a state dict, such as the published ones.
        axis_order: not visible in the shapes; the published weights' order by default.

    Raises:
        InputError: a missing, unexpected or misshapen entry, named in the message.
    """
    offsets, first, last = (_entry(state, name) for name in ("offsets", "layer0.weight", "layer3.weight"))
    mixing = _entry(state, "layer1.weight")
    if offsets.ndim != 3 or first.ndim != 5 or last.ndim != 5 or mixing.ndim != 5:
        raise InputError("these weights have tensors of other dimensions than an Obelisk network's")
    samples, per_group = first.shape[0] * offsets.shape[1], max(mixing.shape[1], 1)
    config = ObeliskConfig(
        channels=last.shape[0],
        offsets=offsets.shape[1],
        hidden=last.shape[1],
        groups=max(samples // per_group, 1),
        edge_channels=first.shape[0],
        axis_order=axis_order,
    )
    check_shapes(state, config)
    return config


def check_shapes(state: Mapping[str, torch.Tensor], config: ObeliskConfig) -> None:
    """Raise InputError unless `state` has exactly the parameters of a network of this configuration."""
    with torch.device("meta"):
        expected = Obelisk(config).state_dict()
    unexpected = sorted(state.keys() - expected.keys())
    if unexpected:
        raise InputError(
            f"these weights hold {', '.join(unexpected)}, which an Obelisk network does not have"
        )
    for name, tensor in expected.items():
        if _entry(state, name).shape != tensor.shape:
            raise InputError(
                f"{name} has shape {tuple(state[name].shape)}; {tuple(tensor.shape)} is needed for {config}"
            )


def _entry(state: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if not isinstance(state.get(name), torch.Tensor):
        raise InputError(
            f"these weights have no tensor {name!r}; those of an Obelisk feature network are needed"
        )
    return state[name]


def _mixed_differences(
    edges: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    shape: tuple[int, int, int],
    groups: int,
) -> torch.Tensor:
    """Differences of samples at offsets (2, n, 3), mixed by weights (hidden, C / groups, n): (B, hidden, *shape)."""
    differences = _differences(edges, offsets, shape)  # (n, D, H, B, C, W)
    count, batch, channels = len(differences), edges.shape[0], edges.shape[1]
    by_group = differences.permute(3, 4, 0, 1, 2, 5).reshape(batch, groups, channels // groups * count, -1)
    mixed = weight.reshape(groups, -1, by_group.shape[2]) @ by_group  # (B, groups, hidden / groups, D*H*W)
    return mixed.view(batch, -1, *shape)


def _differences(edges: torch.Tensor, offsets: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """First minus second sample of each pair of offsets (2, n, 3) around each feature: (n, D, H, B, C, W).

    The positions of one offset form a product grid, so that trilinear sampling is a matrix along each axis. The
    features sit where align_corners=False places them, and are nevertheless sampled with align_corners=True; the
    published weights were trained with this mixture. Samples outside are 0.
    """
    batch, channels, _, height, width = edges.shape
    x, y, z = offsets.flatten(0, 1).unbind(1)  # (2n,) each
    along_z, along_y, along_x = (
        _sampling_matrices(axis, count, size)
        for axis, count, size in zip((z, y, x), shape, edges.shape[2:], strict=True)
    )  # (2n, D, d), (2n, H, h), (2n, W, w), where (d, h, w) are the edges'
    rows = edges.permute(3, 2, 0, 1, 4).reshape(height, -1)  # (h, d*B*C*w)
    lines = (along_y.flatten(0, 1) @ rows).view(len(y), shape[1], edges.shape[2], -1)  # (2n, H, d, B*C*w)
    planes = along_z @ lines.transpose(1, 2).flatten(2)  # (2n, D, H*B*C*w)
    samples = planes.view(len(y), -1, width) @ along_x.transpose(1, 2)
    both = samples.view(2, -1, *shape[:2], batch, channels, shape[2])
    return both[0] - both[1]


def _sampling_matrices(offsets: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """Linear interpolation at `count` cell centres of (-1, 1), each moved by offsets (N,): (N, count, size)."""
    centres = (2 * torch.arange(count, dtype=offsets.dtype, device=offsets.device) + 1) / count - 1
    index = (centres + offsets[:, None] + 1) * (0.5 * (size - 1))
    distance = index[..., None] - torch.arange(size, dtype=offsets.dtype, device=offsets.device)
    return (1 - distance.abs()).clamp(min=0)
