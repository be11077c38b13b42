"""Where the result can be trusted: how far the displacement labels of the last levels could each be the right one.

Where the dissimilarity hardly changes from label to label, nothing says which label is right. What a level leaves open
is the spread of softmax(-dissimilarity / temperature), before neighbours are asked to agree: their agreement says
nothing about whether they are right. Early levels leave much open that later ones settle, so two levels are asked:
the *wide* one, the last that looks at least three steps far and so can still see a gross error, and the *fine* one,
the last of all. Together they are calibrated to the squared error that synthetic deformations of known truth show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pddnet.all_cores import share_out
from pddnet.config import LatticeLevel
from pddnet.coupling import weighted_box_mean
from pddnet.volume import Volume

_BLOCK_ENTRIES = 1 << 19
_WIDE_STEPS = 3
_AVERAGED_VOXELS = 4  # about the radius of what is averaged
# Fitted to five registrations of deformed scans; docs/results.md shows how it holds on others.
_LEAST_STD = 0.44  # working voxels: what interpolation and steps of whole voxels leave
_GAIN = 0.36
_FINE_POWER = 0.75


@dataclass(frozen=True)
class Uncertainty:
    """What a registration says about its own error.

    Args:
        std_mm: standard deviation of the displacement, mm: root of the sum of the variances along the three axes.
        entropy: entropy of the displacement labels, nats, at the last level (published network: over all levels).
    """

    std_mm: Volume
    entropy: Volume


def measured_levels(levels: Sequence[LatticeLevel]) -> tuple[bool, ...]:
    """Which levels' spread is needed: the last that looks three steps far, and the last of all."""
    last = len(levels) - 1
    wide = max((n for n, level in enumerate(levels) if level.reach >= _WIDE_STEPS * level.step), default=last)
    return tuple(n in (wide, last) for n in range(len(levels)))


def error_variance(wide: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Expected squared error of the displacement from the label variances of the wide and the fine level.

    All in working voxels squared, summed over the axes, of one shape. Rises with both.
    """
    return _LEAST_STD**2 + _GAIN * wide * fine.clamp(min=0) ** _FINE_POWER


def averaged_over_body(spread: torch.Tensor, weights: torch.Tensor, spacing: int) -> torch.Tensor:
    """The spread (C, D, H, W) averaged around each control point, which counts by its weight (D, H, W).

    What is left open in the air next to the body says little about the body.

    Args:
        spacing: distance of the control points in working voxels.
    """
    values = spread.permute(1, 2, 3, 0)  # (D, H, W, C)
    for _ in range(max(1, _AVERAGED_VOXELS // spacing)):
        values = weighted_box_mean(values, weights)
    return values.permute(3, 0, 1, 2).contiguous()


def cost_spread(
    dissimilarity: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    between_blocks: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Variance and entropy of softmax(-dissimilarity / temperature).

    Args:
        dissimilarity: (D, H, W, L).
        labels: (L, 3).
        temperature: dissimilarity that one unit of log-probability stands for.
        between_blocks: called after each block of control points, where a caller may stop.

    Returns:
        (2, D, H, W): the variance summed over the axes (labels' unit squared), and the entropy (nats).
    """
    flat = dissimilarity.flatten(0, 2)
    rows = max(1, _BLOCK_ENTRIES // flat.shape[1])
    # what each label contributes: 1, itself, its squared length
    moments = torch.cat((torch.ones_like(labels[:, :1]), labels, labels.square().sum(1, keepdim=True)), 1)
    out = flat.new_empty((2, flat.shape[0]))

    def measure(number: int) -> None:
        block = slice(number * rows, (number + 1) * rows)
        energy = (flat[block] - flat[block].amin(1, keepdim=True)).div_(temperature)
        p = (-energy).exp_()
        total, *mean, square = (p @ moments).unbind(1)
        mean_energy = (energy.mul_(p)).sum(1) / total
        length = sum((component / total).square() for component in mean)
        out[0, block] = (square / total - length).clamp_(min=0)
        out[1, block] = mean_energy + total.log()

    share_out(-(-flat.shape[0] // rows), lambda _: measure, flat.device, between_blocks)
    return out.view(2, *dissimilarity.shape[:3])
