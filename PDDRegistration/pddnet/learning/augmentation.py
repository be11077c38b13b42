"""Scans as they might have been: random affine maps and intensities, from numbers that a generator draws."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pddnet.learning.settings import Augmentation

_LEAST_RANGE = 1e-6


def moved(
    image: torch.Tensor, classes: torch.Tensor | None, strength: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A scan and its labels seen through one random affine map.

    Source: the published training; its matrix is the identity plus normal numbers of this standard deviation.

    Args:
        image: (1, 1, D, H, W); interpolated linearly, the border value held outside.
        classes: (D, H, W), whole numbers, or None; the nearest one is taken, 0 outside.
        strength: standard deviation of the twelve numbers, in the cube's coordinates.
        generator: on the CPU.
    """
    noise = torch.randn(3, 4, generator=generator) * strength
    if strength == 0:
        return image, classes
    matrix = (torch.eye(3, 4) + noise)[None].to(image)
    grid = F.affine_grid(matrix, list(image.shape), align_corners=True)
    seen = F.grid_sample(image, grid, padding_mode="border", align_corners=True)
    if classes is None:
        return seen, None
    as_image = classes[None, None].to(image.dtype)
    nearest = F.grid_sample(as_image, grid, mode="nearest", align_corners=True)
    return seen, nearest[0, 0].to(classes.dtype)


def recoloured(image: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """A scan (1, 1, D, H, W) with other contrast, brightness and noise."""
    exponent, contrast, brightness = torch.randn(3, generator=generator).tolist()
    level, coin = torch.rand(2, generator=generator).tolist()
    out = image
    if how.gamma:
        low, high = image.min(), image.max()
        extent = (high - low).clamp(min=_LEAST_RANGE)
        out = ((out - low) / extent).pow(2 ** (how.gamma * exponent)) * extent + low
    if coin < how.inversion:
        out = out.max() + out.min() - out
    if how.scale or how.shift:
        centre = out.mean()
        out = (out - centre) * (1 + how.scale * contrast) + centre + how.shift * brightness
    if how.noise:
        noise = torch.randn(image.shape, generator=generator)
        out = out + how.noise * level * noise.to(image)
    return out
