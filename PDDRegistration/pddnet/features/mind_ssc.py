"""MIND-SSC, the self-similarity context descriptor: contrast-independent features made by hand.

Heinrich et al., "Towards Realtime Multimodal Fusion for Image-Guided Interventions Using Self-Similarities",
MICCAI 2013. Each of the 12 channels compares two of the six neighbours of a voxel that lie at a right angle to each
other. Two such pairs share the same offset between their members, so six maps of patch distances serve all twelve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from pddnet.all_cores import share_out
from pddnet.errors import InputError

CHANNELS = 12
# (axis a, axis b, sign): the offset e_a + sign * e_b between the two members of a pair; axes in array order (D, H, W)
_DIAGONALS = tuple((a, b, sign) for a in range(3) for b in range(a + 1, 3) for sign in (1, -1))
_VARIANCE_BOUNDS = (1e-3, 1e3)
_SLAB_VOXELS = 1 << 17  # a slab and its temporary maps stay in the cache of a core


def mind_ssc(
    image: torch.Tensor,
    *,
    radius: int = 1,
    dilation: int = 2,
    stride: int = 1,
    at_voxels: bool = False,
    out: torch.Tensor | None = None,
    between_slabs: Callable[[], None] | None = None,
) -> torch.Tensor:
    """The 12 channels of MIND-SSC.

    Worked out slab by slab, except where a gradient is asked for.

    Args:
        image: (B, 1, D, H, W), any intensity scale.
        radius: patches are boxes of 2 radius + 1 voxels at stride 1, and of 2 radius + 2 voxels at stride 2.
        dilation: distance of the six neighbours in voxels; a multiple of the stride.
        stride: 1, or 2 for descriptors centred between voxels 2i and 2i + 1 (patches then have an even width).
        at_voxels: at stride 2, the descriptors of voxels 2i + 1, as at stride 1, instead.
        out: where to put the result, unless a gradient is asked for.
        between_slabs: called between pieces of work, where a caller may stop.

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
    padded = F.pad(image, (2 * dilation + radius,) * 6, mode="replicate")
    pairs = _Pairs(padded, radius, dilation, stride, at_voxels and stride > 1)
    if torch.is_grad_enabled() and image.requires_grad:
        distances = torch.cat(list(pairs.distances(0, pairs.shape[0])), 1)
        distances = distances - distances.amin(1, keepdim=True)
        return torch.exp(-distances / _bounded(distances.mean(1, keepdim=True)))
    return _by_slabs(pairs, out, between_slabs)


def _by_slabs(
    pairs: _Pairs, out: torch.Tensor | None, between_slabs: Callable[[], None] | None
) -> torch.Tensor:
    if out is None:
        out = pairs.padded.new_empty((len(pairs.padded), CHANNELS, *pairs.shape))
    found = out
    variance = torch.empty_like(found[:, :1])
    step = max(1, _SLAB_VOXELS // (pairs.shape[1] * pairs.shape[2] * pairs.stride**2))
    count = -(-pairs.shape[0] // step)

    def measure(number: int) -> None:
        here = slice(number * step, (number + 1) * step)
        slab = found[:, :, here]
        for channel, distance in enumerate(pairs.distances(here.start, slab.shape[2])):
            slab[:, channel] = distance[:, 0]
        slab.sub_(slab.amin(1, keepdim=True))
        variance[:, :, here] = slab.mean(1, keepdim=True)

    share_out(count, lambda _: measure, found.device, between_slabs)
    spread = _bounded(variance).neg_()

    def describe(number: int) -> None:
        here = slice(number * step, (number + 1) * step)
        found[:, :, here].div_(spread[:, :, here]).exp_()

    share_out(count, lambda _: describe, found.device, between_slabs)
    return found


def _bounded(variance: torch.Tensor) -> torch.Tensor:
    """Variance (B, 1, D, H, W) within wide bounds around its mean over the image."""
    mean = variance.mean((1, 2, 3, 4), keepdim=True).clamp(min=torch.finfo(variance.dtype).tiny)
    return torch.minimum(torch.maximum(variance, mean * _VARIANCE_BOUNDS[0]), mean * _VARIANCE_BOUNDS[1])


class _Pairs:
    """The 12 patch distances of a padded image (B, 1, D, H, W)."""

    def __init__(
        self, padded: torch.Tensor, radius: int, dilation: int, stride: int, at_voxels: bool
    ) -> None:
        self.padded, self.radius, self.dilation, self.stride = padded, radius, dilation, stride
        depth, height, width = ((n - 2 * (2 * dilation + radius)) // stride for n in padded.shape[2:])
        self.shape = (depth, height, width)
        self._box, self._first = (2 * radius + 1, stride // 2) if at_voxels else (2 * radius + stride, 0)

    def distances(self, start: int, count: int) -> Iterator[torch.Tensor]:
        """Each (B, 1, count, H, W) / stride, for `count` planes of the descriptor from plane `start`."""
        step, margin = self.dilation, self.dilation // self.stride
        box = self._box
        # the distances of a slab reach `dilation` voxels beyond it, and their boxes `radius` more
        first, planes = start * self.stride + step + self._first, (count + 2 * margin - 1) * self.stride + box
        here = self._window(first, planes, 0, 0)
        for a, b, sign in _DIAGONALS:
            offset = [0, 0, 0]
            offset[a], offset[b] = step, sign * step
            difference = here - self._window(first + offset[0], planes, offset[1], offset[2])
            squared = difference.square() if difference.requires_grad else difference.mul_(difference)
            distance = _box_mean(squared, box, self.stride)
            for axis, shift in ((a, -step), (b, -sign * step)):
                corner = [margin] * 3
                corner[axis] += shift // self.stride
                z, y, x = (slice(c, c + n) for c, n in zip(corner, (count, *self.shape[1:]), strict=True))
                yield distance[:, :, z, y, x]

    def _window(self, plane: int, planes: int, row: int, column: int) -> torch.Tensor:
        """Planes of the padded image, less `dilation` voxels at each side, moved by `row` and `column`."""
        d, (height, width) = self.dilation, self.padded.shape[3:]
        return self.padded[
            :,
            :,
            plane : plane + planes,
            d + row + self._first : height - d + row,
            d + column + self._first : width - d + column,
        ]


def _box_mean(values: torch.Tensor, box: int, stride: int) -> torch.Tensor:
    """Mean over boxes of `box`^3 voxels, one axis after the other, without padding."""
    for axis in (2, 3, 4):
        count = (values.shape[axis] - box) // stride + 1
        parts = [_every(values, axis, start, stride, count) for start in range(box)]
        total = parts[0] + parts[1] if box > 1 else parts[0]
        for part in parts[2:]:
            total = total + part if total.requires_grad else total.add_(part)
        values = total
    return values * (1 / box**3)


def _every(values: torch.Tensor, axis: int, start: int, stride: int, count: int) -> torch.Tensor:
    index = [slice(None)] * values.ndim
    index[axis] = slice(start, start + (count - 1) * stride + 1, stride)
    return values[tuple(index)]
