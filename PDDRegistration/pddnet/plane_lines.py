"""Samples of a volume at all displaced positions of a plane of control points, as far as they need to exist.

Control points and displacement labels form product grids. Along z and y a plane's samples are interpolated; along x
sums over the labels are spread over the volume's own columns instead, so that one product with the lines serves all
channels. A row of points at a time would do with less memory; a plane leaves more to a single product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class PlaneLines:
    """The volume (C, D, H, W) interpolated along z and y for one plane of points after another.

    Args:
        volume: (C, D, H, W).
        weights: (Kd, Ld, D), (Kh, Lh, H), (Kw, Lw, W), see `interpolation.lattice_weights`, of the volume's type.
    """

    def __init__(self, volume: torch.Tensor, weights: Sequence[torch.Tensor]) -> None:
        self._z, self._y, self._x = weights
        self._channels_last = volume.permute(1, 2, 3, 0).contiguous()  # (D, H, W, C)

    def lines(self, plane: int) -> torch.Tensor:
        """(Kh, Ld * Lh * W, C)."""
        height, width, channels = self._channels_last.shape[1:]
        slices = self._z[plane] @ self._channels_last.flatten(1)  # (Ld, H*W*C)
        rows = self._y.flatten(0, 1) @ slices.view(-1, height, width * channels)  # (Ld, Kh*Lh, W*C)
        by_point = rows.view(len(rows), *self._y.shape[:2], -1).transpose(0, 1)  # (Kh, Ld, Lh, W*C)
        return by_point.reshape(len(self._y), -1, channels)

    def spread(self, sums: torch.Tensor) -> torch.Tensor:
        """Weights of the labels (Kh, Kw, Ld, Lh, Lw) as weights of the lines' columns: (Kh, Kw, Ld * Lh * W)."""
        by_column = sums.transpose(0, 1).flatten(1, 3)  # (Kw, Kh*Ld*Lh, Lw)
        spread = torch.bmm(by_column, self._x)  # (Kw, Kh*Ld*Lh, W)
        return spread.view(len(self._x), len(self._y), -1).transpose(0, 1)

    def gathered(self, columns: torch.Tensor) -> torch.Tensor:
        """The adjoint of `spread`: values (Kw, Kh, Ld, Lh, W) of the columns at the labels, (Kh, Kw, Ld, Lh, Lw)."""
        at_labels = torch.bmm(columns.flatten(1, 3), self._x.transpose(1, 2))
        return at_labels.view(*columns.shape[:4], -1).transpose(0, 1)

    def add_to_volume(self, volume: torch.Tensor, plane: int, lines: torch.Tensor) -> None:
        """The adjoint of `lines`: add what belongs to (Kh, Ld * Lh * W, C) to a volume (D, H, W, C)."""
        depth, height, width, channels = volume.shape
        by_label = lines.view(len(self._y), self._z.shape[1], self._y.shape[1], -1).transpose(0, 1)
        slices = self._y.flatten(0, 1).T @ by_label.flatten(1, 2)  # (Ld, H, W*C)
        volume += (self._z[plane].T @ slices.flatten(1)).view(depth, height, width, channels)
