"""Smooth deformations without folds: random stationary velocities, integrated by scaling and squaring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry
from pddnet.warp import DisplacementField

_SQUARINGS = 7
_BORDER_LAYERS = 2
_NODES_PER_WAVELENGTH = 4
_FEWEST_NODES = 2 * _BORDER_LAYERS + 4


def synthetic_deformation(
    geometry: ImageGeometry, seed: int, magnitude_mm: float = 15.0, smoothness_mm: float = 40.0
) -> DisplacementField:
    """A random transform of known truth: smooth, invertible, and at rest on the border of the grid.

    Arsigny et al., "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006.

    Args:
        geometry: the grid the displacements are wanted on; also their `fixed_geometry`.
        seed: the same seed gives the same field on the same machine.
        magnitude_mm: length of the longest displacement; a grid's voxels may miss its peak by a few per cent.
        smoothness_mm: about the distance over which displacements change direction. Displacements much longer
            than this compress space strongly, and are less sure to stay free of folds on a grid.

    Returns:
        Displacements on `geometry`, mm LPS, fixed point -> moving point.

    Raises:
        InputError: a negative magnitude, or a smoothness that is not positive.
    """
    if not magnitude_mm >= 0 or not smoothness_mm > 0:
        raise InputError(
            f"magnitude_mm is {magnitude_mm} and smoothness_mm {smoothness_mm}; "
            "the first must be 0 or more and the second positive"
        )
    lattice = _lattice(geometry, smoothness_mm / _NODES_PER_WAVELENGTH)
    generator = torch.Generator().manual_seed(seed)
    velocity = random_velocity(lattice, smoothness_mm, generator)
    field = _of_length(velocity, lattice, magnitude_mm)
    return replace(DisplacementField(field, lattice).on(geometry), fixed_geometry=geometry)


def random_velocity(lattice: ImageGeometry, smoothness_mm: float, generator: torch.Generator) -> torch.Tensor:
    """Smooth random vectors (D, H, W, 3) on the lattice, mm LPS: root mean square 1 mm, 0 on the border."""
    noise = torch.randn((3, 1, *lattice.shape), generator=generator)
    for axis, spacing in zip((4, 3, 2), lattice.spacing, strict=True):
        noise = _gaussian(noise, axis, 0.5 * smoothness_mm / spacing)
    noise = noise * _window(lattice)
    vectors = noise[:, 0].permute(1, 2, 3, 0)  # (D, H, W, 3)
    return vectors / vectors.square().sum(-1).mean().sqrt()


def exponential(velocity: torch.Tensor, lattice: ImageGeometry, squarings: int = _SQUARINGS) -> torch.Tensor:
    """The displacement (D, H, W, 3), mm LPS, after flowing along a stationary velocity for unit time."""
    to_cube = torch.as_tensor(lattice.matrix(Frame.LPS, Frame.CUBE)[:3, :3], dtype=torch.float32)
    scale = 2.0**squarings
    field = ((velocity / scale) @ to_cube.T).permute(3, 0, 1, 2)[None]  # (1, 3, D, H, W), cube units
    identity = F.affine_grid(torch.eye(3, 4)[None], [1, 1, *lattice.shape], align_corners=True)
    for _ in range(squarings):
        moved = identity + field.permute(0, 2, 3, 4, 1)
        field = field + F.grid_sample(field, moved, padding_mode="border", align_corners=True)
    displacement: torch.Tensor = field[0].permute(1, 2, 3, 0) @ torch.linalg.inv(to_cube).T
    return displacement


def _lattice(geometry: ImageGeometry, spacing_mm: float) -> ImageGeometry:
    """A grid of about `spacing_mm` that covers the field of view of `geometry`, its axes parallel."""
    corners = np.asarray(geometry.extent)
    nodes = np.maximum(np.ceil(corners / spacing_mm).astype(int) + 1, _FEWEST_NODES)
    steps = corners / (nodes - 1)
    origin = geometry.corners()[0]
    return ImageGeometry(
        tuple(nodes.tolist()), tuple(steps.tolist()), tuple(origin.tolist()), geometry.direction
    )


def _of_length(velocity: torch.Tensor, lattice: ImageGeometry, magnitude_mm: float) -> torch.Tensor:
    scale = magnitude_mm / float(velocity.norm(dim=-1).max())
    field = exponential(velocity * scale, lattice)
    for _ in range(6):
        length = float(field.norm(dim=-1).max())
        if magnitude_mm == 0 or abs(length / magnitude_mm - 1) < 0.01:
            break
        scale *= magnitude_mm / length
        field = exponential(velocity * scale, lattice)
    return field


def _gaussian(values: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    """Blur a (B, C, D, H, W) tensor along one axis, `sigma` in grid steps, zeros outside."""
    reach = max(1, int(3 * sigma + 0.5))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    kernel = (weights / weights.sum()).view([-1 if a == axis else 1 for a in range(5)])
    padding = [reach if a == axis else 0 for a in (2, 3, 4)]
    blurred: torch.Tensor = F.conv3d(values, kernel, padding=padding)
    return blurred


def _window(lattice: ImageGeometry) -> torch.Tensor:
    """(D, H, W): 0 on the outermost nodes, 1 from the third layer on."""
    ramps = []
    for count in lattice.shape:
        layer = torch.arange(count, dtype=torch.float32)
        ramps.append((torch.minimum(layer, count - 1 - layer) / _BORDER_LAYERS).clamp(max=1))
    return ramps[0][:, None, None] * ramps[1][None, :, None] * ramps[2][None, None, :]
