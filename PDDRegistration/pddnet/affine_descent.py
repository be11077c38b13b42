"""Gauss-Newton on the features of two coarse scans: the transform near a start that fits best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from pddnet.geometry import Frame, Matrix
from pddnet.placed_scans import Comparison, ScanPair

Freedom = Literal["translation", "rigid", "affine"]

_STRETCH_PRICE = 0.1  # dissimilarity for each squared unit of log stretch, over the three main directions
_FIRST_DAMPING, _LEAST_DAMPING, _LARGEST_DAMPING = 1e-2, 1e-4, 3.0
_RAISE, _LOWER = 16.0, 0.25
_WORTHWHILE = 5e-4  # a step that gains less ends the descent
_SMALLEST_STRETCH = 0.2
_ROWS, _COLUMNS = zip(*((i, j) for i in range(3) for j in range(i, 3)), strict=True)
_FIRST, _SECOND = zip(*((i, j) for i in range(4) for j in range(i, 4)), strict=True)


@dataclass(frozen=True)
class Found:
    """A transform fixed -> moving (4x4, mm LPS), and its price: the dissimilarity and what its stretch costs."""

    transform: Matrix
    price: float


def descend(
    pair: ScanPair, start: Matrix, freedom: Freedom, iterations: int, between_steps: Callable[[], None]
) -> Found:
    """The best transform on the way down from `start`; never one of a higher price.

    Each step minimises the weighted squared difference of features, made linear; the weights (Geman-McClure, their
    scale that of strangers) leave out what does not correspond. A step that does not help is damped and tried again.
    """
    slopes, damping = _Slopes(pair, freedom), _FIRST_DAMPING
    transform, here = start, pair.compare(start)
    price = here.dissimilarity + stretch_price(transform)
    for _ in range(iterations):
        between_steps()
        tried = slopes.step(transform, here, damping)
        there = pair.compare(tried)
        gain = price - there.dissimilarity - stretch_price(tried)
        if gain > 0:
            transform, here, price = tried, there, price - gain
            damping = max(_LEAST_DAMPING, damping * _LOWER)
            if gain < _WORTHWHILE:
                break
        else:
            damping *= _RAISE
            if damping > _LARGEST_DAMPING:
                break
    return Found(transform, price)


def stretch_price(transform: Matrix) -> float:
    """What is added to the dissimilarity for squeezing and stretching; a rigid transform is free."""
    stretches = np.linalg.svd(transform[:3, :3], compute_uv=False)
    return _STRETCH_PRICE * float(np.square(np.log(stretches.clip(_SMALLEST_STRETCH))).sum())


@dataclass(frozen=True)
class _Slopes:
    """The normal equations of a step.

    A step moves the fixed grid's points by p (1, x) before the transform: p is 3x4, x are coordinates about the grid's
    middle, in units of half its longest edge.
    """

    pair: ScanPair
    freedom: Freedom

    @cached_property
    def _half(self) -> float:
        return max(self.pair.fixed.grid.size) / 2  # voxels

    @cached_property
    def _middle(self) -> Matrix:
        return np.asarray((np.asarray(self.pair.fixed.grid.size) - 1) / 2)

    @cached_property
    def _coordinates(self) -> torch.Tensor:
        """(N, 4), float64: x, y, z, 1 for each voxel."""
        axes = [
            (torch.arange(n, dtype=torch.float64) - m) / self._half
            for n, m in zip(self.pair.fixed.grid.size, self._middle, strict=True)
        ]
        z, y, x = torch.meshgrid(*reversed(axes), indexing="ij")
        return torch.stack((x, y, z, torch.ones_like(x)), -1).view(-1, 4).to(self.pair.features.device)

    @cached_property
    def _moments(self) -> torch.Tensor:
        """(N, 10): the products of two coordinates."""
        return self._coordinates[:, _FIRST] * self._coordinates[:, _SECOND]

    @cached_property
    def _basis(self) -> Matrix:
        """(12, parameters): the steps p that the freedom allows."""
        if self.freedom == "affine":
            return np.eye(12)
        steps = []
        for axis in range(3):
            shift = np.zeros((3, 4))
            shift[axis, 3] = 1
            steps.append(shift)
        for a, b in ((0, 1), (0, 2), (1, 2)) if self.freedom == "rigid" else ():
            turn = np.zeros((3, 4))
            turn[a, b], turn[b, a] = 1, -1
            steps.append(turn)
        return np.stack(steps).reshape(-1, 12).T

    def step(self, transform: Matrix, here: Comparison, damping: float) -> Matrix:
        """The transform after one step."""
        hessian, slope = self._normal_equations(here)
        stretch_hessian, stretch_slope = self._stretch(transform)
        basis = self._basis
        reduced = basis.T @ (hessian + stretch_hessian) @ basis
        reduced += np.diag(damping * np.diag(reduced) + 1e-9)
        step = (basis @ np.linalg.solve(reduced, basis.T @ (slope + stretch_slope))).reshape(3, 4)
        linear = np.eye(3) + step[:, :3] / self._half
        if self.freedom == "rigid":
            left, _, right = np.linalg.svd(linear)
            linear = left @ right
        update = np.eye(4)
        update[:3, :3], update[:3, 3] = linear, step[:, 3] + self._middle - linear @ self._middle
        grid = self.pair.fixed.grid
        return np.asarray(
            transform @ grid.matrix(Frame.INDEX, Frame.LPS) @ update @ grid.matrix(Frame.LPS, Frame.INDEX)
        )

    def _normal_equations(self, here: Comparison) -> tuple[Matrix, Matrix]:
        """Hessian (12, 12) and negative slope (12,) of the dissimilarity, in p."""
        share = (
            here.weights / (1 + here.squared).square_() / (here.count * self.pair.strangers)
        )  # (1, d, h, w)
        weights = share.flatten().double()
        gradients = _gradients(
            (here.moving + self.pair.features) / 2
        )  # of both: second order near the minimum
        missing = self.pair.features - here.moving
        along = torch.stack([(g * missing).sum(0).flatten() for g in gradients])  # (3, N)
        slope = (along * weights) @ self._coordinates
        squares = torch.stack(
            [(gradients[a] * gradients[b]).sum(0).flatten() for a, b in zip(_ROWS, _COLUMNS, strict=True)]
        )  # (6, N)
        sums = ((squares * weights) @ self._moments).cpu().numpy()  # (6, 10)
        hessian = np.zeros((3, 4, 3, 4))
        for row, a, b in zip(sums, _ROWS, _COLUMNS, strict=True):
            block = np.zeros((4, 4))
            block[_FIRST, _SECOND] = row
            block[_SECOND, _FIRST] = row
            hessian[a, :, b], hessian[b, :, a] = block, block
        return hessian.reshape(12, 12), slope.cpu().numpy().reshape(12)

    def _stretch(self, transform: Matrix) -> tuple[Matrix, Matrix]:
        """The same for `stretch_price`: the log stretch changes by the symmetric part of a small step."""
        direction = self.pair.fixed.grid.direction
        _, stretches, axes = np.linalg.svd(transform[:3, :3] @ np.asarray(direction))
        log_stretch = axes.T @ np.diag(np.log(stretches.clip(_SMALLEST_STRETCH))) @ axes
        by_entry = np.zeros((3, 3, 3, 4))
        for a in range(3):
            for b in range(3):
                by_entry[a, b, a, b] += 0.5 / self._half
                by_entry[a, b, b, a] += 0.5 / self._half
        symmetric = by_entry.reshape(9, 12)
        return _STRETCH_PRICE * symmetric.T @ symmetric, -_STRETCH_PRICE * symmetric.T @ log_stretch.reshape(
            9
        )


def _gradients(features: torch.Tensor) -> list[torch.Tensor]:
    """Central differences along x, y, z in voxels, (C, d, h, w) each; 0 at the border."""
    slopes = []
    for axis in (3, 2, 1):
        slope, n = torch.zeros_like(features), features.shape[axis]
        if n > 2:
            inner = slope.narrow(axis, 1, n - 2)
            torch.sub(features.narrow(axis, 2, n - 2), features.narrow(axis, 0, n - 2), out=inner).mul_(0.5)
        slopes.append(slope)
    return slopes
