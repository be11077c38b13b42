"""MIND-SSC, the self-similarity context descriptor: contrast-independent features made by hand.

Heinrich et al., "Towards Realtime Multimodal Fusion for Image-Guided Interventions Using Self-Similarities",
MICCAI 2013. Each of the 12 channels compares two of the six neighbours of a voxel that lie at a right angle to each
other. Two such pairs share the same offset between their members, so six maps of patch distances serve all twelve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from pddnet.errors import InputError

# (axis a, axis b, sign): the offset e_a + sign * e_b between the two members of a pair; axes in array order (D, H, W)
_DIAGONALS = tuple((a, b, sign) for a in range(3) for b in range(a + 1, 3) for sign in (1, -1))
_VARIANCE_BOUNDS = (1e-3, 1e3)


def mind_ssc(
    image: torch.Tensor,
    *,
    radius: int = 1,
    dilation: int = 2,
    stride: int = 1,
    between_channels: Callable[[], None] | None = None,
) -> torch.Tensor:
    """The 12 channels of MIND-SSC.

    Args:
        image: (B, 1, D, H, W), any intensity scale.
        radius: patches are boxes of 2 radius + 1 voxels at stride 1, and of 2 radius + 2 voxels at stride 2.
        dilation: distance of the six neighbours in voxels; a multiple of the stride.
        stride: 1, or 2 for descriptors centred between voxels 2i and 2i + 1 (patches then have an even width).
        between_channels: called between channels, where a caller may stop.

    Returns:
        (B, 12, D / stride, H / stride, W / stride), in (0, 1]; the border is replicated.

    Raises:
        InputError: the image has another number of dimensions or channels, or a setting does not fit.
    """
    if image.ndim != 5 or image.shape[1] != 1:
        raise InputError(f"image has shape {tuple(image.shape)}; mind_ssc() takes (B, 1, D, H, W)")
    if stride not in (1, 2) or radius < 0 or dilation < 1 or dilation % stride:
        raise InputError(
            f"radius {radius}, dilation {dilation}, stride {stride}: the stride is 1 or 2 and divides the dilation"
        )
    channels = torch.cat(list(_pair_distances(image, radius, dilation, stride, between_channels)), 1)
    channels = channels - channels.amin(1, keepdim=True)
    variance = channels.mean(1, keepdim=True)
    mean = variance.mean((1, 2, 3, 4), keepdim=True).clamp(min=torch.finfo(image.dtype).tiny)
    variance = torch.minimum(torch.maximum(variance, mean * _VARIANCE_BOUNDS[0]), mean * _VARIANCE_BOUNDS[1])
    return (
        channels.div_(variance).neg_().exp_()
        if not channels.requires_grad
        else torch.exp(-channels / variance)
    )


def _pair_distances(
    image: torch.Tensor, radius: int, dilation: int, stride: int, between_channels: Callable[[], None] | None
) -> Iterator[torch.Tensor]:
    """The 12 patch distances, each (B, 1, D, H, W) / stride."""
    reach = 2 * dilation + radius  # how far from a voxel its descriptor looks
    padded = F.pad(image, (reach,) * 6, mode="replicate")
    for a, b, sign in _DIAGONALS:
        offset = [0, 0, 0]
        offset[a], offset[b] = dilation, sign * dilation
        squared = (padded - torch.roll(padded, [-o for o in offset], dims=(2, 3, 4))).square()
        # `distance` begins `dilation` voxels outside the image
        distance = _box_mean(_trim(squared, dilation), 2 * radius + stride, stride)
        if between_channels:
            between_channels()
        for axis, shift in ((a, -dilation), (b, -sign * dilation)):
            yield _window(distance, axis + 2, (dilation + shift) // stride, dilation // stride)


def _trim(values: torch.Tensor, margin: int) -> torch.Tensor:
    """Remove `margin` voxels on every side: those that `torch.roll` filled from the other end."""
    inner = slice(margin, -margin)
    return values[:, :, inner, inner, inner]


def _box_mean(values: torch.Tensor, box: int, stride: int) -> torch.Tensor:
    """Mean over boxes of `box`^3 voxels, one axis after the other, without padding."""
    for axis in (4, 3, 2):
        count = (values.shape[axis] - box) // stride + 1
        parts = [_every(values, axis, start, stride, count) for start in range(box)]
        total = parts[0] + parts[1] if box > 1 else parts[0]
        for part in parts[2:]:
            total = total + part
        values = total / box
    return values


def _every(values: torch.Tensor, axis: int, start: int, stride: int, count: int) -> torch.Tensor:
    index = [slice(None)] * values.ndim
    index[axis] = slice(start, start + (count - 1) * stride + 1, stride)
    return values[tuple(index)]


def _window(distance: torch.Tensor, axis: int, start: int, margin: int) -> torch.Tensor:
    """The image's extent out of `distance`, which is `margin` larger on each side, starting at `start` along `axis`."""
    index = [slice(None), slice(None)] + [slice(margin, n - margin) for n in distance.shape[2:]]
    index[axis] = slice(start, start + distance.shape[axis] - 2 * margin)
    return distance[tuple(index)]
