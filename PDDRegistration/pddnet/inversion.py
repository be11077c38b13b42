"""The inverse of a displacement field, and how far it is from one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from pddnet.geometry import Frame, ImageGeometry
from pddnet.point_samples import sample_points
from pddnet.points import slabs, transform_points_torch
from pddnet.volume import Volume
from pddnet.warp import DisplacementField

_SAMPLES_ALONG_AN_AXIS = 9
_EVERY_CELL = 4
_CELLS_AT_ONCE = 1 << 15
_LARGEST_STEP_MM = 20.0
_ITERATIONS = 30
_TOLERANCE_MM = 1e-3
_LEAST_DETERMINANT = 0.05
_DERIVATIVES, _STEPS_PER_DERIVATIVE = 3, 2


def invert(
    field: DisplacementField, onto: ImageGeometry, between_slabs: Callable[[], None] | None = None
) -> tuple[DisplacementField, Volume]:
    """The transform from moving points to fixed points, by damped Newton steps at each point.

    Args:
        field: fixed point -> moving point.
        onto: grid of the moving space the inverse is sampled on.
        between_slabs: called between pieces of work, where a caller may stop.

    Returns:
        The inverse, mm LPS, and its residual: the distance in mm between a moving point y and where the field takes the
        inverse's x, |x + u(x) - y|. It is large where the field folds.
    """
    vectors, residual = torch.empty((*onto.shape, 3)), torch.empty(onto.shape)
    blocks = [
        max(1, int(wide / fine)) for wide, fine in zip(field.geometry.spacing, onto.spacing, strict=True)
    ]
    guess = invert(field, onto.coarsened(blocks), between_slabs)[0] if max(blocks) > 1 else None
    for rows, points in slabs(onto, 1 << 18):
        moving = points.reshape(-1, 3)
        x, distance = _solve(
            field, moving, moving - field.at(moving) if guess is None else guess.apply(moving)
        )
        vectors[rows] = (x.view(points.shape) - points).float()
        residual[rows] = distance.view(points.shape[:-1]).float()
        if between_slabs:
            between_slabs()
    return DisplacementField(vectors, onto, onto), Volume(residual, onto)


def inverse_grid(field: DisplacementField, moving: ImageGeometry) -> ImageGeometry:
    """A grid for the inverse of `field`: blocks of moving voxels about as fine as the field, and one cell around.

    It covers the moving scan and all that the fixed scan's points are taken to: beyond it ITK displaces nothing.
    """
    ratios = np.floor(min(field.geometry.spacing) / np.asarray(moving.spacing) + 1e-6)
    blocks = moving.coarsened([int(ratio) for ratio in np.maximum(ratios, 1)])
    fixed = field.fixed_geometry or field.geometry
    points = fixed.samples(_SAMPLES_ALONG_AN_AXIS)
    around = blocks.spanning((-1, -1, -1), blocks.size)
    return around.spanning(*around.index_range(field.apply(torch.as_tensor(points)).numpy()))


def residual_without_inverse(
    field: DisplacementField, grid: ImageGeometry, between: Callable[[], None] | None = None
) -> torch.Tensor:
    """How far in mm the inverse on `grid` is from one in the middle of every fourth of its cells each way, (N,).

    The same as making the inverse and looking between its points, in an eighth of the time.

    Args:
        field: fixed point -> moving point.
        grid: of the moving space; see `inverse_grid`.
        between: called between pieces of work.
    """
    axes = [np.arange(0, max(1, n - 1), _EVERY_CELL) for n in grid.size]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 1, 3)
    corners = torch.as_tensor(grid.to_lps(cells + np.array(list(itertools.product((0, 1), repeat=3)))))
    residual = []
    for start in range(0, len(corners), _CELLS_AT_ONCE):
        moving = corners[start : start + _CELLS_AT_ONCE]  # (N, 8, 3)
        flat = moving.reshape(-1, 3)
        fixed, _ = _solve(field, flat, flat - field.at(flat))
        # linear in the middle of a cell: the mean of its corners
        inside, middle = fixed.view_as(moving).mean(1), moving.mean(1)
        residual.append((field.apply(inside) - middle).norm(dim=-1))
        if between:
            between()
    return torch.cat(residual)


def _solve(field: DisplacementField, y: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Points x (N, 3) with x + u(x) = y as nearly as can be, from a first guess, and the distances left (N,)."""
    easy, distance = _solve_quickly(field, y, x)
    hard = (distance > _TOLERANCE_MM).nonzero().flatten()
    if len(hard):
        found, left = _solve_carefully(field, y[hard], x[hard])
        closer = left < distance[hard]
        easy[hard[closer]], distance[hard[closer]] = found[closer], left[closer]
    return easy, distance


def _solve_quickly(
    field: DisplacementField, y: torch.Tensor, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_solve`, in float32: Newton steps whose derivative is kept for a few of them; good where nothing folds."""
    to_index = field.geometry.matrix(Frame.LPS, Frame.INDEX)
    way = _Way(
        field,
        transform_points_torch(to_index, y).float().T.contiguous(),
        torch.from_numpy(to_index[:3, :3]).float(),
        (x - y).float().T.contiguous(),
    )
    distance = _length(way.error())
    for _ in range(_DERIVATIVES):
        unsolved = (distance > _TOLERANCE_MM).nonzero().flatten()
        if not len(unsolved):
            break
        part = way.of(unsolved)
        part.take_steps()
        way.walked[:, unsolved], distance[unsolved] = part.walked, _length(part.error())
    return y + way.walked.T, distance.double()


@dataclass(frozen=True)
class _Way:
    """From points y to where the field is thought to take them from, all float32.

    Args:
        start: y in voxels of the field, (3, N).
        turn: mm, LPS to voxels of the field, (3, 3).
        walked: x - y, mm, (3, N).
    """

    field: DisplacementField
    start: torch.Tensor
    turn: torch.Tensor
    walked: torch.Tensor

    def of(self, points: torch.Tensor) -> _Way:
        """That of some points."""
        return replace(self, start=self.start[:, points], walked=self.walked[:, points])

    def error(self) -> torch.Tensor:
        """x + u(x) - y, (3, N)."""
        return sample_points(self.field.channels, self._index()).add_(self.walked)

    def take_steps(self) -> None:
        """Walk a few steps by one derivative."""
        gradient = sample_points(self.field.gradient_channels, self._index())
        inverse = _inverse_of_identity_plus(gradient.view(3, 3, -1))
        for _ in range(_STEPS_PER_DERIVATIVE):
            step = (inverse * self.error()).sum(1)
            self.walked.sub_(step.mul_((_LARGEST_STEP_MM / _length(step).clamp_(min=1e-12)).clamp_(max=1)))

    def _index(self) -> torch.Tensor:
        return torch.addmm(self.start, self.turn, self.walked)


def _length(vectors: torch.Tensor) -> torch.Tensor:
    """Of vectors (3, N); a norm along the first axis would take ten times as long."""
    x, y, z = vectors.unbind()
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()


def _inverse_of_identity_plus(gradient: torch.Tensor) -> torch.Tensor:
    """(I + G)^-1 of matrices (3, 3, N), which are changed; I where I + G is close to singular or folded."""
    identity = torch.eye(3)[:, :, None]
    first, second, third = gradient.add_(identity).unbind(1)  # columns, (3, N)
    rows = torch.stack(
        [torch.linalg.cross(a, b, dim=0) for a, b in ((second, third), (third, first), (first, second))]
    )
    determinant = (first * rows[0]).sum(0)
    return torch.where(determinant > _LEAST_DETERMINANT, rows / determinant, identity)


def _solve_carefully(
    field: DisplacementField, y: torch.Tensor, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_solve`, in float64: damped Newton steps, each taken only if it leads closer."""
    error = field.apply(x) - y
    distance = error.norm(dim=-1)
    damping = torch.ones_like(distance)
    for _ in range(_ITERATIONS):
        open_points = (distance > _TOLERANCE_MM).nonzero().flatten()
        if not len(open_points):
            break
        here = x[open_points]
        tried = here - damping[open_points, None] * _newton_step(field, here, error[open_points])
        new_error = field.apply(tried) - y[open_points]
        new_distance = new_error.norm(dim=-1)
        better = new_distance < distance[open_points]
        kept = open_points[better]
        x[kept], error[kept], distance[kept] = tried[better], new_error[better], new_distance[better]
        damping[kept] = (damping[kept] * 2).clamp(max=1)
        damping[open_points[~better]] /= 2
    return x, distance


def _newton_step(field: DisplacementField, x: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """J^-1 error, of bounded length; the plain error where J = I + du/dx is close to singular or folded."""
    jacobian = torch.eye(3, dtype=torch.float64) + field.gradient_at(x)
    first, second, third = jacobian.unbind(-1)  # its columns
    rows = torch.stack((second.cross(third, -1), third.cross(first, -1), first.cross(second, -1)), -2)
    determinant = (first * rows[..., 0, :]).sum(-1, keepdim=True)
    solved = (rows @ error[..., None])[..., 0] / determinant  # Cramer's rule
    step = torch.where(determinant > _LEAST_DETERMINANT, solved, error)
    length = step.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    bounded: torch.Tensor = step * (_LARGEST_STEP_MM / length).clamp(max=1)
    return bounded
