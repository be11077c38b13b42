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

from pddnet.all_cores import share_out
from pddnet.row_sampling import RowSampler
from pddnet.sampling import block_mean, dilated, grid_sample

_SLAB_POINTS = 1 << 16
_FOLD_MARGIN = 4  # cells around what was smoothed that are judged again
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

    def halved(self) -> Lattice:
        """Cells twice as large, where every two cells along each axis make one."""
        d, h, w = self.shape
        return Lattice((d // 2, h // 2, w // 2), 2 * self.step, self.first + self.step / 2)

    def every(self, stride: int) -> Lattice:
        """Every `stride`-th point, starting with the middle of the first group."""
        start = stride // 2
        d, h, w = (len(range(start, n, stride)) for n in self.shape)
        return Lattice((d, h, w), self.step * stride, self.first + start * self.step)


def interpolate(values: torch.Tensor, source: Lattice, target: Lattice) -> torch.Tensor:
    """Linear interpolation of (C, D, H, W) on `source` at the points of `target`; the border is held."""
    if source == target:
        return values
    depth, rows, columns = (_interpolation_matrix(source, target, axis, values) for axis in range(3))
    along_depth = (depth @ values.flatten(2)).view(-1, len(depth), *values.shape[2:])
    return rows @ along_depth @ columns.T


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
    weights = [_interpolation_matrix(field, lattice, axis, displacement) for axis in range(3)]
    halves = field == lattice.halved() and not any(n % 2 for n in lattice.shape)

    def displacement_of(start: int, count: int) -> torch.Tensor:
        planes = _interpolate_depth(displacement, weights[0][start : start + count])
        if halves:  # half the time of the products
            return F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)
        return weights[1] @ planes @ weights[2].T

    return _sampled(image, lattice, displacement_of, between_slabs)


def compose(update: torch.Tensor, before: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """u(x) + d(x + u(x)), both on `lattice`, in working voxels: `update` first, `before` after it."""
    return update + sample_displaced(before, lattice, update)


def symmetrised(
    forward: torch.Tensor,
    backward: torch.Tensor,
    lattice: Lattice,
    pooled_by: int,
    iterations: int = 4,
    between_iterations: Callable[[], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make two opposite fields more nearly each other's inverse.

    On a lattice pooled by `pooled_by` both pass `iterations` times through u' = (u - v o (id + u)) / 2 (and the same
    for v); what that changes is added to the fields, so that their detail stays.
    """
    before = [block_mean(field, pooled_by) for field in (forward, backward)]
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
    return _sampled(values, lattice, lambda start, count: displacement[:, start : start + count])


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
    displacement = displacement.clone()
    part = displacement
    for _ in range(rounds):
        folded = (smallest_determinant(part, step) < least).to(part)
        if not bool(folded.any()):
            break
        near = dilated(dilated(folded))
        blend = F.avg_pool3d(near[None, None], 3, 1, 1)[0]
        smooth = F.avg_pool3d(F.pad(part[None], (1,) * 6, mode="replicate"), 3, 1)[0]
        part += blend * (smooth - part)
        part = part[(slice(None), *_window(near, _FOLD_MARGIN))]  # nothing changed farther away
    return displacement


def _window(mask: torch.Tensor, margin: int) -> tuple[slice, ...]:
    """The box (D, H, W) around what is not 0, grown by `margin` points where there are any."""
    box = []
    for axis, size in enumerate(mask.shape):
        others = [other for other in range(3) if other != axis]
        present = mask.amax(dim=others).nonzero().flatten()
        box.append(slice(max(0, int(present[0]) - margin), min(size, int(present[-1]) + 1 + margin)))
    return tuple(box)


def smallest_determinant(displacement: torch.Tensor, step: int) -> torch.Tensor:
    """The smallest det(I + du/dx) at each point of a lattice over the eight cells that meet there: (D, H, W).

    Differences are one-sided, so that linear interpolation of the field is judged as it is, cell by cell.
    """
    out = displacement.new_empty(displacement.shape[1:])
    depth = len(out)
    planes = max(1, _SLAB_POINTS // (out.shape[1] * out.shape[2]))

    def judge(number: int) -> None:
        start, stop = number * planes, min((number + 1) * planes, depth)
        first, last = max(0, start - 1), min(depth, stop + 1)
        smallest = _smallest_determinant(displacement[:, first:last], step)
        out[start:stop] = smallest[start - first : stop - first]

    share_out(-(-depth // planes), lambda _: judge, displacement.device)
    return out


def _smallest_determinant(displacement: torch.Tensor, step: int) -> torch.Tensor:
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


def _sampled(
    values: torch.Tensor,
    lattice: Lattice,
    displacement_of: Callable[[int, int], torch.Tensor],
    between_slabs: Callable[[], None] | None = None,
) -> torch.Tensor:
    """values(x + d(x)) on their lattice; `displacement_of` gives d for so many planes from a plane on."""
    depth, height, width = lattice.shape
    step = max(1, _SLAB_POINTS // (height * width))
    out = torch.empty_like(values)
    on_cpu = values.device.type == "cpu"
    rows = RowSampler(values) if on_cpu else None

    def sample(number: int) -> None:
        start = number * step
        count = min(step, depth - start)
        displacement = displacement_of(start, count)
        if rows is not None:
            out[:, start : start + count] = rows.displaced(displacement, start, 1 / lattice.step)
        else:
            out[:, start : start + count] = grid_sample(values, _displaced(displacement, lattice, start))

    share_out(-(-depth // step), lambda _: sample, values.device, between_slabs)
    return out


def _displaced(displacement: torch.Tensor, lattice: Lattice, start: int) -> torch.Tensor:
    """Where planes of a lattice from `start` on lead, (d, H, W, 3), normalised (x, y, z) on the whole lattice.

    Args:
        displacement: (3, d, H, W), working voxels.
    """
    shape = displacement.shape[1:]
    moved = displacement.new_empty((*shape, 3))
    for axis, first in zip((2, 1, 0), (0, 0, start), strict=True):  # x, y, z
        scale = 2 / max(lattice.shape[axis] - 1, 1)
        line = torch.arange(first, first + shape[axis], dtype=torch.float64) * scale - 1
        line = line.to(displacement).view([-1 if a == axis else 1 for a in range(3)])
        torch.add(line, displacement[2 - axis], alpha=scale / lattice.step, out=moved[..., 2 - axis])
    return moved


def _interpolate_depth(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Planes of (C, D, H, W), interpolated along the first axis with (planes, D) weights: (C, planes, H, W)."""
    used = weights.abs().sum(0).nonzero().flatten()
    low, high = int(used[0]), int(used[-1]) + 1
    planes = weights[:, low:high] @ values[:, low:high].flatten(2)
    return planes.view(-1, len(weights), *values.shape[2:])


def _interpolation_matrix(source: Lattice, target: Lattice, axis: int, like: torch.Tensor) -> torch.Tensor:
    """Weights (target points, source points) of linear interpolation along one axis, the border held."""
    n = source.shape[axis]
    at = torch.arange(target.shape[axis], dtype=torch.float64) * target.step + target.first
    index = ((at - source.first) / source.step).clamp(0, n - 1)
    distance = (index[:, None] - torch.arange(n, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0).to(like)
