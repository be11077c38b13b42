"""Grids, images and fields that forgive nothing: oblique, anisotropic, non-cubic, left-handed, far from 0."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from pddnet.geometry import ImageGeometry
from pddnet.points import slabs
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField

seeds = st.integers(0, 2**32 - 1)


def random_geometry(rng: np.random.Generator, low: int = 6, high: int = 14) -> ImageGeometry:
    """Random unequal sizes and spacings, orthonormal axes of either hand, an origin off by decimetres."""
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    size = rng.choice(np.arange(low, high), 3, replace=False)
    rows = tuple((float(x), float(y), float(z)) for x, y, z in axes)
    spacing, origin = rng.uniform(0.5, 3.0, 3), rng.uniform(-200, 200, 3)
    return ImageGeometry(tuple(size), tuple(spacing), tuple(origin), (rows[0], rows[1], rows[2]))


def overlapping_geometry(rng: np.random.Generator, other: ImageGeometry) -> ImageGeometry:
    """Another random grid with the same centre."""
    grid = random_geometry(rng)
    shift = other.centre - grid.centre
    return ImageGeometry(grid.size, grid.spacing, tuple(np.add(grid.origin, shift)), grid.direction)


def covering_geometry(other: ImageGeometry, factors: tuple[int, int, int] = (3, 2, 4)) -> ImageGeometry:
    """A coarser grid along the same axes, one cell larger than `other` on every side."""
    coarse = other.coarsened(factors)
    return coarse.cropped((-1, -1, -1), tuple(n + 2 for n in coarse.size))


def noise(rng: np.random.Generator, geometry: ImageGeometry) -> Volume:
    """Independent voxels between 0 and 1: nothing smooth that would hide a shift."""
    return Volume(torch.from_numpy(rng.random(geometry.shape, dtype=np.float32)), geometry)


def patches(rng: np.random.Generator, geometry: ImageGeometry, count: int = 5) -> LabelMap:
    """Labels 0 to `count - 1`, independent from voxel to voxel."""
    return LabelMap(torch.from_numpy(rng.integers(0, count, geometry.shape)), geometry)


def random_field(rng: np.random.Generator, geometry: ImageGeometry, mm: float = 2.0) -> DisplacementField:
    """Displacements with a standard deviation of `mm`, independent from grid point to grid point."""
    return DisplacementField(torch.from_numpy(rng.normal(0, mm, (*geometry.shape, 3))).float(), geometry)


def random_affine_matrix(
    rng: np.random.Generator, geometry: ImageGeometry, strength: float = 0.1
) -> np.ndarray:
    """A 4x4 matrix, mm LPS, that turns, scales and shears a grid about its centre and shifts it by about a mm."""
    matrix = np.eye(4)
    matrix[:3, :3] += rng.normal(0, strength, (3, 3))
    matrix[:3, 3] = geometry.centre - matrix[:3, :3] @ geometry.centre + rng.normal(0, 1.0, 3)
    return matrix


def affine_field(matrix: np.ndarray, geometry: ImageGeometry) -> DisplacementField:
    """The displacements of a 4x4 matrix, mm LPS, on a grid."""
    points = torch.cat([points for _, points in slabs(geometry)])
    vectors = points @ torch.from_numpy(matrix[:3, :3] - np.eye(3)).T + torch.from_numpy(matrix[:3, 3])
    return DisplacementField(vectors, geometry)
