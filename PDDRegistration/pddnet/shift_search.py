"""All shifts at once: how well two coarse scans fit after every shift by whole cells, by Fourier transforms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.geometry import Frame, ImageGeometry, Matrix
from pddnet.placed_scans import ScanPair, features_of

_CELL = 2  # voxels along the edge of a cell
_TINY = 1e-3


@dataclass(frozen=True)
class ShiftSearch:
    """The fixed scan, made ready once for the search after any turn of the moving scan."""

    pair: ScanPair

    @cached_property
    def _fixed(self) -> torch.Tensor:
        """(C + 2, d, h, w) on cells: what is multiplied with the moving scan's features, its share and their energy."""
        counted = _pooled(self.pair.counted)
        features = _pooled(self.pair.features * self.pair.counted) / counted.clamp(min=_TINY)
        energy = features.square().sum(0, keepdim=True) - self.pair.strangers
        return torch.cat((-2 * counted * features, counted * energy, counted))

    def best(self, linear: Matrix, count: int) -> list[Matrix]:
        """The transforms (4x4, mm LPS) with the linear part `linear` (3x3) whose shifts fit best, the best first.

        Neighbours of one that was taken are passed over. Only what both scans show counts, less what strangers differ
        by, so that more overlap is better unless it fits badly.
        """
        turned, grid = self._turned(linear)
        moving, first = self._moving(turned, grid)
        spatial = zip(self._fixed.shape[1:], moving.shape[1:], strict=True)
        size = [_fast_length(a + b - 1) for a, b in spatial]
        spectrum = torch.fft.rfftn(self._fixed, s=size, dim=(1, 2, 3)).conj()
        spectrum = (spectrum * torch.fft.rfftn(moving, s=size, dim=(1, 2, 3))).sum(0)
        loss = torch.fft.irfftn(spectrum, s=size)  # [shift]: sum over x of fixed(x) moving(x + shift)
        transforms = []
        for _ in range(count):
            place = np.unravel_index(int(loss.argmin()), tuple(size))
            shift = [
                int(p) if p < n else int(p) - s for p, n, s in zip(place, moving.shape[1:], size, strict=True)
            ]
            move = np.eye(4)
            move[:3, 3] = _CELL * (np.asarray(shift[::-1]) + first)
            fixed = self.pair.fixed.grid
            transforms.append(
                turned @ fixed.matrix(Frame.INDEX, Frame.LPS) @ move @ fixed.matrix(Frame.LPS, Frame.INDEX)
            )
            _pass_over(loss, place)
        return transforms

    def _turned(self, linear: Matrix) -> tuple[Matrix, ImageGeometry]:
        """The turn about the bodies' centres, and the fixed scan's grid moved to cover all of the moving scan."""
        fixed, moving = self.pair.fixed, self.pair.moving
        turned = np.eye(4)
        turned[:3, :3], turned[:3, 3] = linear, moving.body_centre - linear @ fixed.body_centre
        corners = (moving.grid.corners() - turned[:3, 3]) @ np.linalg.inv(linear).T
        index = fixed.grid.to_index(corners)
        low = np.floor(index.min(0) / _CELL).astype(int) * _CELL
        size = np.ceil((index.max(0) + 1 - low) / _CELL).astype(int) * _CELL
        return turned, fixed.grid.cropped(low.tolist(), size.tolist())

    def _moving(self, turned: Matrix, grid: ImageGeometry) -> tuple[torch.Tensor, Matrix]:
        """(C + 2, D, H, W) on cells, beside `_fixed`, and the first cell's index (x, y, z) among the fixed scan's."""
        seen = self.pair.moving.through(turned, grid)
        share = _pooled(seen.known)
        features = _pooled(features_of(seen.image) * seen.known) / share.clamp(min=_TINY)
        first = np.rint(self.pair.fixed.grid.to_index(np.asarray(grid.origin)) / _CELL)
        energy = features.square().sum(0, keepdim=True)
        return torch.cat((share * features, share, share * energy)), np.asarray(first)


def _pass_over(loss: torch.Tensor, place: tuple[np.intp, ...]) -> None:
    """Make a shift and its neighbours in (D, H, W) the last to be taken."""
    around = [[(int(p) + step) % n for step in (-1, 0, 1)] for p, n in zip(place, loss.shape, strict=True)]
    loss[np.ix_(*around)] = float("inf")


def _fast_length(least: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5."""
    while True:
        rest = least
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return least
        least += 1


def _pooled(values: torch.Tensor) -> torch.Tensor:
    return F.avg_pool3d(values[None], _CELL)[0]
