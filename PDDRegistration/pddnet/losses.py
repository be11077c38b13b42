"""What a registration is trained with: the non-local label loss and its class weights, and what may replace it.

The other term, diffusion regularisation, is `regularisation.diffusion`. Source: Heinrich, MICCAI 2019,
section 2.4.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from pddnet.correlation import displaced_positions
from pddnet.errors import InputError
from pddnet.features.mind_ssc import mind_ssc
from pddnet.interpolation import lattice_axes, lattice_weights, sample_at
from pddnet.plane_lines import PlaneLines
from pddnet.regularisation import diffusion

__all__ = [
    "class_weights",
    "diffusion",
    "mind_loss",
    "non_local_label_loss",
    "one_hot",
    "soft_dice_loss",
    "transfer_labels",
    "warp_holding_border",
    "warped_label_loss",
]

BACKGROUND_WEIGHT = 0.15


def one_hot(labels: torch.Tensor, classes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Whole numbers 0 to classes - 1, (D, H, W), as channels (1, classes, D, H, W)."""
    if labels.ndim != 3 or labels.is_floating_point():
        raise InputError(
            f"labels are {labels.dtype} {tuple(labels.shape)}; whole numbers (D, H, W) are needed"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise InputError(
            f"labels run from {lowest} to {highest}; 0 to {classes - 1} is needed: renumber them first"
        )
    return F.one_hot(labels.long(), classes).permute(3, 0, 1, 2)[None].to(dtype)


def class_weights(label_maps: Iterable[torch.Tensor], classes: int) -> torch.Tensor:
    """Inverse square root of each class's frequency, scaled to a mean of 1; then the background is set to
    0.15.

    Args:
        label_maps: whole numbers 0 to classes - 1, any shapes, pooled.
        classes: how many there are, background included. A class that does not occur gets 0.

    Returns:
        (classes,), float32.
    """
    counts = torch.zeros(classes, dtype=torch.float64)
    for labels in label_maps:
        found = torch.bincount(labels.flatten().long().cpu(), minlength=classes)
        if len(found) > classes:
            raise InputError(
                f"a label map holds label {len(found) - 1}; with {classes} classes 0 to {classes - 1} fit"
            )
        counts += found
    present = counts > 0
    if not present.any():
        raise InputError("label_maps holds no voxels; at least one label map is needed")
    weights = torch.where(present, counts.clamp(min=1).rsqrt(), 0.0)
    weights = weights / weights[present].mean()
    weights[0] = BACKGROUND_WEIGHT
    return weights.float()


def transfer_labels(
    moving_one_hot: torch.Tensor, probabilities: torch.Tensor, points: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """The moving labels each control point expects: one-hot values at all displaced positions, weighted by
    probability.

    Args:
        moving_one_hot: (1, N, D, H, W); interpolated linearly, the border value held outside. It is data: a gradient
            in it is refused.
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw); differentiable. What is sampled is computed again for the
            gradient, so that it need not be kept.
        points: (Kd, Kh, Kw, 3) from `control_points`.
        labels: (Ld, Lh, Lw, 3) from `displacement_labels`.

    Returns:
        (N, Kd, Kh, Kw); the classes sum to 1.
    """
    axes, offsets = lattice_axes(points), lattice_axes(labels)
    if axes is None or offsets is None or probabilities.shape != (*points.shape[:3], *labels.shape[:3]):
        raise InputError(
            f"probabilities have shape {tuple(probabilities.shape)}, points {tuple(points.shape)}, labels "
            f"{tuple(labels.shape)}; what control_points and displacement_labels gave for them is needed"
        )
    if moving_one_hot.requires_grad:
        raise InputError("moving_one_hot requires a gradient, and none flows into it; detach() it")
    weights = [w.to(probabilities) for w in lattice_weights(axes, offsets, moving_one_hot.shape[2:])]
    transferred: torch.Tensor = _Transfer.apply(  # type: ignore[no-untyped-call]
        probabilities, moving_one_hot[0].to(probabilities), weights
    )
    return transferred


class _Transfer(torch.autograd.Function):
    """A plane of points at a time, backwards too; nothing but the arguments is kept."""

    @staticmethod
    def forward(ctx, probabilities, moving, weights):  # type: ignore[no-untyped-def]
        planes = PlaneLines(moving, weights)
        ctx.planes, ctx.shape = planes, probabilities.shape
        found = [torch.bmm(planes.spread(p), planes.lines(k)) for k, p in enumerate(probabilities)]
        return torch.stack(found).permute(3, 0, 1, 2)  # (Kd, Kh, Kw, N) to (N, Kd, Kh, Kw)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        _, height, width, *labels = ctx.shape
        out = gradient.new_empty(ctx.shape)
        by_point = gradient.permute(1, 3, 2, 0)  # (Kd, Kw, Kh, N)
        for k, arriving in enumerate(by_point):
            lines = ctx.planes.lines(k)  # (Kh, X, N)
            columns = torch.bmm(arriving.transpose(0, 1), lines.transpose(1, 2))  # (Kh, Kw, X)
            by_column = columns.transpose(0, 1).reshape(width, height, *labels[:2], -1)
            out[k] = ctx.planes.gathered(by_column)
        return out, None, None


def non_local_label_loss(
    moving_one_hot: torch.Tensor,
    fixed_one_hot: torch.Tensor,
    probabilities: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Weighted mean squared difference of the transferred moving labels and the fixed labels at the control
    points.

    Args:
        moving_one_hot, fixed_one_hot: (1, N, D, H, W).
        probabilities, points, labels: see `transfer_labels`.
        weights: (N,) from `class_weights`.

    Returns:
        A scalar, the mean over classes and control points.
    """
    if moving_one_hot.shape[1] != fixed_one_hot.shape[1] or tuple(weights.shape) != (fixed_one_hot.shape[1],):
        raise InputError(
            f"moving_one_hot has {moving_one_hot.shape[1]} classes, fixed_one_hot {fixed_one_hot.shape[1]}, "
            f"weights {tuple(weights.shape)}; one number of classes is needed"
        )
    transferred = transfer_labels(moving_one_hot, probabilities, points, labels)
    wanted = sample_at(fixed_one_hot, points)  # (N, Kd, Kh, Kw)
    return ((transferred - wanted).square() * weights[:, None, None, None]).mean()


def soft_dice_loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 - the mean soft Dice, 2 sum(a b) / (sum(a^2) + sum(b^2)), of the classes without the background.

    Args:
        found, wanted: (1, N, D, H, W), 0 to 1, background first. A class that neither has does not count.

    Returns:
        A scalar, 0 to 1.
    """
    if found.shape != wanted.shape or found.ndim != 5 or found.shape[1] < 2:
        raise InputError(
            f"found has shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}; "
            "the same shape (1, N, D, H, W) with N of 2 or more is needed"
        )
    a, b = found[0, 1:].flatten(1), wanted[0, 1:].flatten(1)
    total = a.square().sum(1) + b.square().sum(1)
    present = total > 0
    overlap = 2 * (a * b).sum(1) / torch.where(present, total, 1.0)
    return 1 - overlap.sum() / present.sum().clamp(min=1) if bool(present.any()) else found.sum() * 0


def warped_label_loss(
    moving_one_hot: torch.Tensor,
    fixed_one_hot: torch.Tensor,
    displacement: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Weighted mean squared difference of the moving labels, warped by one displacement, and the fixed labels.

    What a spatial transformer is trained with, in the place of `non_local_label_loss`.

    Args:
        moving_one_hot, fixed_one_hot: (1, N, D, H, W).
        displacement: (1, 3, D, H, W), normalised, channels (x, y, z), fixed -> moving; differentiable.
        weights: (N,) from `class_weights`.

    Returns:
        A scalar, the mean over classes and voxels.
    """
    warped = warp_holding_border(moving_one_hot, displacement)
    return ((warped - fixed_one_hot).square() * weights[:, None, None, None]).mean()


def mind_loss(
    fixed_image: torch.Tensor, moving_image: torch.Tensor, displacement: torch.Tensor
) -> torch.Tensor:
    """Mean squared difference of the MIND-SSC descriptors of the fixed image and of the warped moving one.

    Args:
        fixed_image, moving_image: (1, 1, D, H, W).
        displacement: (1, 3, D, H, W), normalised, channels (x, y, z), fixed -> moving; differentiable.

    Returns:
        A scalar, the mean over channels and every second voxel along each axis.
    """
    warped = warp_holding_border(moving_image, displacement)
    with torch.no_grad():
        wanted = mind_ssc(fixed_image, stride=2)
    return (mind_ssc(warped, stride=2) - wanted).square().mean()


def warp_holding_border(volume: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Values (1, C, D, H, W) at the displaced positions of their own grid, linear, the border value held outside.

    Args:
        displacement: (1, 3, D, H, W), normalised, channels (x, y, z).
    """
    return sample_at(volume, displaced_positions(displacement)[0])[None]
