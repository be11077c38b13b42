"""Fields and images on nested cell lattices: interpolation between them, warping, composition, symmetry.

A lattice has cells of `step` working voxels; cell i is centred at voxel i * step + first. Displacements are in
working voxels, channels (x, y, z), tensors (3, D, H, W).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

_SLAB_POINTS = 1 << 20
_TINY = 1e-8


@dataclass(frozen=True)
class Lattice:
    """Points first + i * step along each axis, in working voxels; `shape` is (D, H, W)."""

    shape: tuple[int, int, int]
    step: int
    first: float

    @classmethod
    def of_cells(cls, voxels: tuple[int, int, int], step: int) -> Lattice:
        """The centres of cells of `step` voxels that fill a grid of `voxels` (D, H, W)."""
        return cls((voxels[0] // step, voxels[1] // step, voxels[2] // step), step, (step - 1) / 2)

    def every(self, stride: int) -> Lattice:
        """Every `stride`-th point, starting with the middle of the first group."""
        start = stride // 2
        d, h, w = (len(range(start, n, stride)) for n in self.shape)
        return Lattice((d, h, w), self.step * stride, self.first + start * self.step)


def interpolate(values: torch.Tensor, source: Lattice, target: Lattice) -> torch.Tensor:
    """Linear interpolation of (C, D, H, W) on `source` at the points of `target`; the border is held."""
    for axis in range(3):
        weights = _interpolation_matrix(source, target, axis, values)
        values = torch.movedim(torch.tensordot(values, weights, dims=([axis + 1], [1])), -1, axis + 1)
    return values.contiguous()


def warp_on(
    image: torch.Tensor,
    lattice: Lattice,
    displacement: torch.Tensor,
    field: Lattice,
    between_slabs: Callable[[], None] | None = None,
) -> torch.Tensor:
    """image(x + d(x)) at the points of `lattice`, which the image (C, D, H, W) lies on; the border is held.

    Args:
        displacement: (3, ...) in working voxels, on the lattice `field`.
        between_slabs: called after each slab, where a caller may stop.
    """
    out = torch.empty_like(image)
    depth, height, width = lattice.shape
    step = max(1, _SLAB_POINTS // (height * width))
    for start in range(0, depth, step):
        count = min(step, depth - start)
        slab = _Slab(lattice, start, count)
        moved = slab.displaced(_interpolate_slab(displacement, field, slab))
        out[:, start : start + count] = _sample(image, moved)
        if between_slabs:
            between_slabs()
    return out


def compose(update: torch.Tensor, before: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """u(x) + d(x + u(x)), both on `lattice`, in working voxels: `update` first, `before` after it."""
    return update + sample_displaced(before, lattice, update)


def symmetrised(
    forward: torch.Tensor,
    backward: torch.Tensor,
    lattice: Lattice,
    pooled_by: int,
    iterations: int = 10,
    between_iterations: Callable[[], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make two opposite fields more nearly each other's inverse.

    On a lattice pooled by `pooled_by` both pass `iterations` times through u' = (u - v o (id + u)) / 2 (and the same
    for v); what that changes is added to the fields, so that their detail stays.
    """
    before = [F.avg_pool3d(field[None], pooled_by)[0] for field in (forward, backward)]
    u, v = before
    first = lattice.first + lattice.step * (pooled_by - 1) / 2
    coarse = Lattice((u.shape[1], u.shape[2], u.shape[3]), lattice.step * pooled_by, first)
    for _ in range(iterations):
        u, v = (u - sample_displaced(v, coarse, u)) / 2, (v - sample_displaced(u, coarse, v)) / 2
        if between_iterations:
            between_iterations()
    forward_change, backward_change = (
        interpolate(now - then, coarse, lattice) for now, then in zip((u, v), before, strict=True)
    )
    return forward + forward_change, backward + backward_change


def sample_displaced(values: torch.Tensor, lattice: Lattice, displacement: torch.Tensor) -> torch.Tensor:
    """values(x + d(x)) for (C, D, H, W) and (3, D, H, W) on the same lattice; the border is held."""
    return _sample(values, _Slab(lattice, 0, lattice.shape[0]).displaced(displacement))


def extended(values: torch.Tensor, confidence: torch.Tensor, strength: float) -> torch.Tensor:
    """Values (C, D, H, W) continued smoothly to where `confidence` (1, D, H, W) is low (push-pull on a pyramid).

    Each value becomes its mean with that of the next coarser lattice, weighted by its confidence and by `strength`.
    """
    shape = (values.shape[1], values.shape[2], values.shape[3])
    if max(shape) <= 2:
        mean = (values * confidence).sum((1, 2, 3), keepdim=True) / confidence.sum().clamp(min=_TINY)
        return mean.expand_as(values)
    odd = [pad for n in reversed(shape) for pad in (0, n % 2)]
    share = F.avg_pool3d(F.pad(confidence[None], odd), 2)[0]
    pooled = F.avg_pool3d(F.pad((values * confidence)[None], odd), 2)[0] / share.clamp(min=_TINY)
    coarse = extended(pooled, share, strength)
    coarse_lattice = Lattice((coarse.shape[1], coarse.shape[2], coarse.shape[3]), 2, 0.5)
    around = interpolate(coarse, coarse_lattice, Lattice(shape, 1, 0.0))
    return (confidence * values + strength * around) / (confidence + strength)


def unfolded(displacement: torch.Tensor, step: int, least: float = 0.05, rounds: int = 60) -> torch.Tensor:
    """The field (3, D, H, W), smoothed just where its Jacobian determinant is below `least` at a corner of a cell.

    Displacements in voxels on a lattice of `step` voxels. Each round blends the field around the remaining places with
    its 3^3 average; few places take more than a few rounds.
    """
    for _ in range(rounds):
        folded = (smallest_determinant(displacement, step) < least).to(displacement)
        if not bool(folded.any()):
            break
        blend = F.avg_pool3d(F.max_pool3d(folded[None, None], 5, 1, 2), 3, 1, 1)[0]
        smooth = F.avg_pool3d(F.pad(displacement[None], (1,) * 6, mode="replicate"), 3, 1)[0]
        displacement = displacement + blend * (smooth - displacement)
    return displacement


def smallest_determinant(displacement: torch.Tensor, step: int) -> torch.Tensor:
    """The smallest det(I + du/dx) at each point of a lattice over the eight cells that meet there: (D, H, W).

    Differences are one-sided, so that linear interpolation of the field is judged as it is, cell by cell.
    """
    slopes = []
    for axis in (3, 2, 1):  # x, y, z
        slope = torch.diff(displacement, dim=axis) / step
        first, last = slope.narrow(axis, 0, 1), slope.narrow(axis, slope.shape[axis] - 1, 1)
        slopes.append((torch.cat((first, slope), axis), torch.cat((slope, last), axis)))  # behind, ahead
    smallest = displacement.new_full(displacement.shape[1:], math.inf)
    for x, y, z in itertools.product(*slopes):
        smallest = torch.minimum(smallest, _determinant_of_identity_plus(x, y, z))
    return smallest


def _determinant_of_identity_plus(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """det(I + G) where the columns of G are x, y, z, each (3, D, H, W)."""
    a, b, c = 1 + x[0], x[1], x[2]
    d, e, f = y[0], 1 + y[1], y[2]
    g, h, i = z[0], z[1], 1 + z[2]
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


@dataclass(frozen=True)
class _Slab:
    """`count` planes of a lattice from plane `start`."""

    lattice: Lattice
    start: int
    count: int

    def displaced(self, displacement: torch.Tensor) -> torch.Tensor:
        """Index (x, y, z) on the whole lattice of each point of the slab moved by (3, ...) voxels: (d, H, W, 3)."""
        planes = range(self.start, self.start + self.count)
        k, j, i = (
            torch.tensor(line).to(displacement)
            for line in (planes, *(range(n) for n in self.lattice.shape[1:]))
        )
        shift = displacement / self.lattice.step
        return torch.stack((i + shift[0], j[:, None] + shift[1], k[:, None, None] + shift[2]), -1)


def _interpolate_slab(values: torch.Tensor, source: Lattice, slab: _Slab) -> torch.Tensor:
    """`interpolate` at the points of a slab of another lattice."""
    shape = (slab.count, *slab.lattice.shape[1:])
    weights = _interpolation_matrix(source, slab.lattice, 0, values)[slab.start : slab.start + slab.count]
    used = weights.abs().sum(0).nonzero().flatten()
    low, high = int(used[0]), int(used[-1]) + 1
    values = torch.einsum("kn,cnhw->ckhw", weights[:, low:high], values[:, low:high])
    rest = Lattice(shape, slab.lattice.step, slab.lattice.first)
    for axis in (1, 2):
        weights = _interpolation_matrix(source, rest, axis, values)
        values = torch.movedim(torch.tensordot(values, weights, dims=([axis + 1], [1])), -1, axis + 1)
    return values


def _sample(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(C, D, H, W) sampled linearly at (d, h, w, 3) indices, border held: (C, d, h, w)."""
    size = torch.tensor(values.shape[:0:-1], dtype=index.dtype, device=index.device)
    cube = index * (2 / (size - 1).clamp(min=1)) - 1
    return F.grid_sample(
        values[None], cube[None], mode="bilinear", padding_mode="border", align_corners=True
    )[0]


def _interpolation_matrix(source: Lattice, target: Lattice, axis: int, like: torch.Tensor) -> torch.Tensor:
    """Weights (target points, source points) of linear interpolation along one axis, the border held."""
    n = source.shape[axis]
    at = torch.arange(target.shape[axis], dtype=torch.float64) * target.step + target.first
    index = ((at - source.first) / source.step).clamp(0, n - 1)
    distance = (index[:, None] - torch.arange(n, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0).to(like)
