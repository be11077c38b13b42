"""What is read off the regularised costs of a block of control points, while it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Reader = Callable[[int, slice, torch.Tensor], object]
"""Takes a plane's number, a slice of its rows and their logits (rows, L, Kw), to which it may add constants."""


@dataclass(frozen=True)
class LabelMoments:
    """What the probabilities of a control grid say, without the probabilities.

    Args:
        displacement: (Kd, Kh, Kw, 3), their expectation, (x, y, z) in the unit of the labels.
        variance: (Kd, Kh, Kw, 3), the diagonal of their covariance, that unit squared.
        entropy: (Kd, Kh, Kw), nats.
    """

    displacement: torch.Tensor
    variance: torch.Tensor
    entropy: torch.Tensor


class MomentReader:
    """Sums over the labels, weighted by their probabilities.

    Args:
        grid: control points (Kd, Kh, Kw).
        labels: (Ld, Lh, Lw, 3), (x, y, z).
        like: type and device.
    """

    def __init__(self, grid: tuple[int, int, int], labels: torch.Tensor, like: torch.Tensor) -> None:
        flat = labels.reshape(-1, 3).to(like)
        powers = torch.cat((torch.ones_like(flat[:, :1]), flat, flat.square()), 1)
        self._powers = powers.T.contiguous()  # (7, L)
        # 1 | x y z | x^2 y^2 z^2 | logit, each times exp(logit)
        self._sums = like.new_empty(*grid[:2], 8, grid[2])

    def read(self, plane: int, rows: slice, logits: torch.Tensor) -> None:
        """A `Reader`."""
        sums = self._sums[plane, rows]  # (rows, 8, Kw)
        weights = torch.exp(logits.sub_(logits.amax(1, keepdim=True)))
        torch.bmm(self._powers.expand(len(sums), -1, -1), weights, out=sums[:, :7])
        torch.sum(weights.mul_(logits), 1, out=sums[:, 7])

    def moments(self) -> LabelMoments:
        """After all planes were read."""
        total = self._sums[:, :, 0]  # (Kd, Kh, Kw)
        means = (self._sums[:, :, 1:] / total[:, :, None]).transpose(2, 3)  # (Kd, Kh, Kw, 7)
        mean, square = means[..., :3].contiguous(), means[..., 3:6]
        return LabelMoments(mean, (square - mean.square()).clamp(min=0), total.log() - means[..., 6])


def probability_writer(out: torch.Tensor) -> Reader:
    """A `Reader` that writes probabilities to (Kd, Kh, Kw, L)."""

    def write(plane: int, rows: slice, logits: torch.Tensor) -> None:
        out[plane, rows] = torch.softmax(logits, 1).transpose(1, 2)

    return write
