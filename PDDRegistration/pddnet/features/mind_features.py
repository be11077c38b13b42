"""MIND-SSC in the place of learned features: a module without parameters, at half the resolution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pddnet.features.mind_ssc import CHANNELS, mind_ssc

STRIDE = 2


class MindFeatures(nn.Module):
    """Image (B, 1, D, H, W) to its descriptors (B, 12, D // 2, H // 2, W // 2); see `mind_ssc`."""

    channels = CHANNELS

    def forward(self, image: torch.Tensor, between_chunks: Callable[[], None] | None = None) -> torch.Tensor:
        """The descriptors of an image; see the class."""
        return mind_ssc(image, stride=STRIDE, between_slabs=between_chunks)
