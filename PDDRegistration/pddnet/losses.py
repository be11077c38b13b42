"""What the network is trained with: the non-local label loss and its class weights.

The other term, diffusion regularisation, is `regularisation.diffusion`. Source: Heinrich, MICCAI 2019,
section 2.4.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from pddnet.errors import InputError
from pddnet.interpolation import lattice_axes, lattice_weights, sample_at
from pddnet.regularisation import diffusion

__all__ = ["class_weights", "diffusion", "non_local_label_loss", "one_hot", "transfer_labels"]

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
        moving_one_hot: (1, N, D, H, W); interpolated linearly, the border value held outside.
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw); differentiable. The samples are computed again for the
            gradient, so that they need not be kept.
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
    weights = lattice_weights(axes, offsets, moving_one_hot.shape[2:])
    planes = []
    for k, depth_weights in enumerate(weights[0]):
        slices = torch.einsum("ld,cdhw->lchw", depth_weights, moving_one_hot[0])
        rows = [
            checkpoint(_transferred_row, slices, p, row_weights, weights[2], use_reentrant=False)
            for p, row_weights in zip(probabilities[k], weights[1], strict=True)
        ]
        planes.append(torch.stack(rows, 1))  # (N, Kh, Kw)
    return torch.stack(planes, 1)


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


def _transferred_row(
    slices: torch.Tensor, probabilities: torch.Tensor, row_weights: torch.Tensor, column_weights: torch.Tensor
) -> torch.Tensor:
    """One row of points: slices (Ld, N, H, W) weighted by probabilities (Kw, Ld, Lh, Lw), to (N, Kw)."""
    samples = (row_weights @ slices) @ column_weights.flatten(0, 1).T  # (Ld, N, Lh, Kw*Lw)
    samples = samples.view(*samples.shape[:3], *column_weights.shape[:2])
    return torch.einsum("lnhkw,klhw->nk", samples, probabilities)
