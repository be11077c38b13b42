"""Discrete regularisation: min-convolution over labels and mean field over control points, twice.

Volumes are (Kd, Kh, Kw, Ld, Lh, Lw): control points first, displacement labels last. Displacements are
normalised and written (x, y, z). Source: Heinrich, MICCAI 2019, section 2.3; the padding is that of the
published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn

from pddnet.errors import InputError

Hook = Callable[[], None]
Scalar = float | torch.Tensor

_ELEMENTS_AT_ONCE_CPU = 2**19  # a block of points and its copies stay in the second-level cache
_ELEMENTS_AT_ONCE_GPU = 2**25
_FILTER = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)  # two averages of three, one after the other


@dataclass(frozen=True)
class RegularisationWeights:
    """The paper's alpha_1 ... alpha_6, in order; numbers, or scalar tensors while they are trained.

    Only data_weight * repeat_weight * sharpness and data_weight * message_weight * sharpness (for a positive
    data_weight) change the probabilities: the biases cancel in the softmax.

    Args:
        data_weight, data_bias: scale and offset of the dissimilarities before the first round.
        repeat_weight: scale of the same dissimilarities in the second round.
        message_weight: scale of what the neighbours said in the first round.
        message_bias: offset of their sum.
        sharpness: scale of the regularised costs before the softmax.
    """

    data_weight: Scalar
    data_bias: Scalar
    repeat_weight: Scalar
    message_weight: Scalar
    message_bias: Scalar
    sharpness: Scalar


PUBLISHED_WEIGHTS = RegularisationWeights(1.1337, 0.0761, 1.0533, -0.7469, 0.0728, 1.1337)
INITIAL_WEIGHTS = RegularisationWeights(1.0, 0.1, 1.0, 1.0, 0.1, 1.0)


class Regularisation(nn.Module):
    """Owns the six trainable scalars; what they do is `regularise`."""

    def __init__(self, weights: RegularisationWeights = INITIAL_WEIGHTS) -> None:
        super().__init__()
        self.data_weight = nn.Parameter(torch.tensor(float(weights.data_weight)))
        self.data_bias = nn.Parameter(torch.tensor(float(weights.data_bias)))
        self.repeat_weight = nn.Parameter(torch.tensor(float(weights.repeat_weight)))
        self.message_weight = nn.Parameter(torch.tensor(float(weights.message_weight)))
        self.message_bias = nn.Parameter(torch.tensor(float(weights.message_bias)))
        self.sharpness = nn.Parameter(torch.tensor(float(weights.sharpness)))

    @property
    def weights(self) -> RegularisationWeights:
        """The scalars by name, still attached to their gradients."""
        return RegularisationWeights(
            **{field.name: getattr(self, field.name) for field in fields(RegularisationWeights)}
        )

    def forward(self, dissimilarity: torch.Tensor, between_chunks: Hook | None = None) -> torch.Tensor:
        """Probabilities of the labels; see `regularise`."""
        return regularise(dissimilarity, self.weights, between_chunks=between_chunks)


def regularise(
    dissimilarity: torch.Tensor, weights: RegularisationWeights, *, between_chunks: Hook | None = None
) -> torch.Tensor:
    """Two rounds of min-convolution and mean field, then the softmax over labels.

    Args:
        dissimilarity: (Kd, Kh, Kw, Ld, Lh, Lw), any floating type; half precision is widened piece by piece.
        weights: the six scalars.
        between_chunks: called between pieces of work; what it raises ends the computation.

    Returns:
        Probabilities of the same shape, float32 at least, the sum over the last three axes 1. Beside the
        argument only this volume is held in memory, unless a gradient is asked for.
    """
    _check_volume("dissimilarity", dissimilarity)
    w, filters = weights, _label_filters(dissimilarity)

    def first_round(data: torch.Tensor) -> torch.Tensor:
        return _min_convolve(w.data_weight * data + w.data_bias, filters)

    def second_round(data: torch.Tensor, message: torch.Tensor) -> torch.Tensor:
        data = w.data_weight * data + w.data_bias
        return _min_convolve(w.repeat_weight * data + w.message_weight * message + w.message_bias, filters)

    def to_probabilities(cost: torch.Tensor) -> torch.Tensor:
        return _softmax(cost, w.sharpness)

    message = _mean_field(_by_points(first_round, (dissimilarity,), None, between_chunks), between_chunks)
    cost = _by_points(second_round, (dissimilarity, message), message, between_chunks)
    cost = _mean_field(cost, between_chunks)
    return _by_points(to_probabilities, (cost,), cost, between_chunks)


def min_convolution(cost: torch.Tensor, *, between_chunks: Hook | None = None) -> torch.Tensor:
    """Lower envelope over the labels, approximately: minimum of 3^3, then twice the average of 3^3.

    The border is repeated before the minimum, as in the published code.

    Args:
        cost: (Kd, Kh, Kw, Ld, Lh, Lw).

    Returns:
        The same shape. Differentiable; where two labels tie for a minimum they share its gradient.
    """
    _check_volume("cost", cost)
    filters = _label_filters(cost)
    return _by_points(lambda block: _min_convolve(block, filters), (cost,), None, between_chunks)


def mean_field(cost: torch.Tensor, *, between_chunks: Hook | None = None) -> torch.Tensor:
    """Message passing between control points: twice the average of 3^3 neighbours, border repeated.

    Args:
        cost: (Kd, Kh, Kw, Ld, Lh, Lw); each label is filtered over the first three axes on its own.

    Returns:
        The same shape. Differentiable.
    """
    _check_volume("cost", cost)
    return _mean_field(cost.clone(), between_chunks)


def softmax_over_labels(cost: torch.Tensor, sharpness: Scalar = 1.0) -> torch.Tensor:
    """Probabilities exp(-sharpness * cost) / sum, over the last three axes of (Kd, Kh, Kw, Ld, Lh, Lw)."""
    _check_volume("cost", cost)
    return _by_points(lambda block: _softmax(block, sharpness), (cost,), None, None)


def expected_displacement(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean displacement of each control point.

    Args:
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw).
        labels: (Ld, Lh, Lw, 3), (x, y, z).

    Returns:
        (Kd, Kh, Kw, 3) in the unit of the labels.
    """
    _check_labels(probabilities, labels)
    return probabilities.flatten(3) @ labels.reshape(-1, 3).to(probabilities.dtype)


def displacement_covariance_diagonal(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Variance of the displacement of each control point along (x, y, z): the diagonal of its covariance.

    Args:
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw).
        labels: (Ld, Lh, Lw, 3), (x, y, z).

    Returns:
        (Kd, Kh, Kw, 3), the labels' unit squared; its square root is the standard deviation.
    """
    _check_labels(probabilities, labels)
    flat = labels.reshape(-1, 3).to(probabilities.dtype)
    moments = probabilities.flatten(3) @ torch.cat((flat, flat.square()), 1)  # (Kd, Kh, Kw, 6)
    return (moments[..., 3:] - moments[..., :3].square()).clamp(min=0)


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of the labels of each control point, nats: 0 for one certain label, log(L) for no preference.

    Args:
        probabilities: (Kd, Kh, Kw, Ld, Lh, Lw).

    Returns:
        (Kd, Kh, Kw).
    """
    _check_volume("probabilities", probabilities)
    planes = [torch.special.entr(plane.flatten(2)).sum(-1) for plane in probabilities]
    return torch.stack(planes)


def diffusion(displacement: torch.Tensor) -> torch.Tensor:
    """Diffusion regularisation: mean squared difference of neighbours along an axis, summed over the axes.

    Args:
        displacement: (Kd, Kh, Kw, 3), any unit; the published code weights the result by 1.5 to 2.5.

    Returns:
        A scalar, the displacement's unit squared.
    """
    terms = [displacement.diff(dim=axis).square().mean() for axis in range(3) if displacement.shape[axis] > 1]
    return torch.stack(terms).sum() if terms else displacement.sum() * 0


def upsample_displacement(displacement: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Trilinear interpolation of control-point displacements to an image, whose border the outer points are.

    Args:
        displacement: (Kd, Kh, Kw, 3), normalised (x, y, z).
        shape: (D, H, W) of the image.

    Returns:
        (1, 3, D, H, W), normalised, channels (x, y, z).
    """
    if displacement.ndim != 4 or displacement.shape[3] != 3:
        raise InputError(f"displacement has shape {tuple(displacement.shape)}; (Kd, Kh, Kw, 3) is needed")
    channels_first = displacement.permute(3, 0, 1, 2)[None]  # (1, 3, Kd, Kh, Kw)
    return F.interpolate(channels_first, size=tuple(shape), mode="trilinear", align_corners=True)


def band_matrix(size: int, taps: Sequence[float], *, like: torch.Tensor) -> torch.Tensor:
    """A 1-D filter with the border value repeated, as a matrix (size, size): filtered = matrix @ values."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    rows = torch.arange(size)
    for shift, tap in enumerate(taps, start=-(len(taps) // 2)):
        columns = (rows + shift).clamp(0, size - 1)
        matrix.index_put_((rows, columns), torch.tensor(tap, dtype=torch.float64), accumulate=True)
    return matrix.to(like.device, like.dtype)


def _label_filters(volume: torch.Tensor) -> list[torch.Tensor]:
    """For each label axis, the filter of the minima from one label before to one after it: (size, size + 2).

    Two labels beyond the border the minimum is the same as one beyond it, so its tap is added there.
    """
    like = _widened(volume[:0])
    return [band_matrix(size + 2, _FILTER, like=like)[1:-1] for size in volume.shape[3:]]


def _min_convolve(cost: torch.Tensor, filters: Sequence[torch.Tensor]) -> torch.Tensor:
    """Min-convolution of a block of points (n, Ld, Lh, Lw)."""
    values = cost.permute(1, 2, 3, 0).contiguous()  # points last: slices are runs of n
    for axis in range(3):
        values = _extended_minimum(values, axis)  # (Ld + 2, Lh + 2, Lw + 2, n) in the end
    for axis, matrix in enumerate(filters):
        filtered = matrix @ values.flatten(axis + 1)  # (..., size, rest)
        values = filtered.view(*filtered.shape[:-1], *values.shape[axis + 1 :])
    return values.permute(3, 0, 1, 2)


def _extended_minimum(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Minimum of three neighbours along an axis; one more at either end, where only the border value is seen.

    That is what a border repeated before the minimum gives: [c0, min(c0, c1), min(c0, c1, c2), ..., cn].
    """
    size = values.shape[axis]
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, size - 1, 1)
    if size == 1:
        return torch.cat((first, first, first), axis)
    pairs = torch.minimum(values.narrow(axis, 0, size - 1), values.narrow(axis, 1, size - 1))
    left, right = pairs.narrow(axis, 0, size - 2), pairs.narrow(axis, 1, size - 2)
    ends = (first, pairs.narrow(axis, 0, 1), pairs.narrow(axis, size - 2, 1), last)
    if values.requires_grad:
        return torch.cat((*ends[:2], torch.minimum(left, right), *ends[2:]), axis)
    extended = values.new_empty([n + 2 * (a == axis) for a, n in enumerate(values.shape)])
    torch.minimum(left, right, out=extended.narrow(axis, 2, size - 2))
    for position, end in zip((0, 1, size, size + 1), ends, strict=True):
        extended.narrow(axis, position, 1).copy_(end)
    return extended


def _mean_field(cost: torch.Tensor, between_chunks: Hook | None) -> torch.Tensor:
    """`mean_field`, overwriting its argument unless a gradient is asked for."""
    depth, rows, columns = (band_matrix(n, _FILTER, like=cost) for n in cost.shape[:3])

    def within_plane(plane: torch.Tensor) -> torch.Tensor:  # (1, Kh, Kw, L)
        along_columns = columns @ plane[0]  # (Kh, Kw, L)
        return (rows @ along_columns.flatten(1)).view_as(plane)

    def across_planes(columns_of_all: torch.Tensor) -> torch.Tensor:  # (Kd, n)
        return depth @ columns_of_all

    planes = cost.flatten(3)  # (Kd, Kh, Kw, L)
    planes = _in_pieces(within_plane, (planes,), planes, 0, 1, between_chunks).flatten(1)  # (Kd, Kh*Kw*L)
    step = max(1, _elements_at_once(cost) // len(depth))
    return _in_pieces(across_planes, (planes,), planes, 1, step, between_chunks).view_as(cost)


def _softmax(cost: torch.Tensor, sharpness: Scalar) -> torch.Tensor:
    return torch.softmax(-sharpness * cost.flatten(1), 1).view_as(cost)


def _by_points(
    function: Callable[..., torch.Tensor],
    volumes: Sequence[torch.Tensor],
    reuse: torch.Tensor | None,
    between_chunks: Hook | None,
) -> torch.Tensor:
    """`function` of a few control points (n, Ld, Lh, Lw) of each volume at a time; float32 at least."""
    blocks = [volume.flatten(0, 2) for volume in volumes]
    step = max(1, _elements_at_once(blocks[0]) // math.prod(blocks[0].shape[1:]))
    out = None if reuse is None else reuse.flatten(0, 2)
    return _in_pieces(function, blocks, out, 0, step, between_chunks).view(volumes[0].shape)


def _in_pieces(
    function: Callable[..., torch.Tensor],
    volumes: Sequence[torch.Tensor],
    reuse: torch.Tensor | None,
    axis: int,
    step: int,
    between_chunks: Hook | None,
) -> torch.Tensor:
    """`function` of slices along an axis of the volumes, the results put together.

    Results without gradients are written into `reuse`, which may be one of the volumes, or into a new volume.
    """

    def results() -> Iterator[torch.Tensor]:
        for start in range(0, volumes[0].shape[axis], step):
            if between_chunks is not None:
                between_chunks()
            length = min(step, volumes[0].shape[axis] - start)
            yield function(*(_widened(volume.narrow(axis, start, length)) for volume in volumes))

    pieces, start = results(), 0
    for piece in pieces:
        if piece.requires_grad:
            return torch.cat([piece, *pieces], axis)
        if reuse is None:
            reuse = piece.new_empty(volumes[0].shape)
        reuse.narrow(axis, start, piece.shape[axis]).copy_(piece)
        start += piece.shape[axis]
    return volumes[0] if reuse is None else reuse


def _elements_at_once(tensor: torch.Tensor) -> int:
    return _ELEMENTS_AT_ONCE_CPU if tensor.device.type == "cpu" else _ELEMENTS_AT_ONCE_GPU


def _widened(block: torch.Tensor) -> torch.Tensor:
    return block.float() if block.dtype in (torch.float16, torch.bfloat16) else block


def _check_volume(name: str, volume: torch.Tensor) -> None:
    if volume.ndim != 6 or 0 in volume.shape:
        raise InputError(
            f"{name} has shape {tuple(volume.shape)}; (Kd, Kh, Kw, Ld, Lh, Lw), none of them 0, is needed"
        )


def _check_labels(probabilities: torch.Tensor, labels: torch.Tensor) -> None:
    _check_volume("probabilities", probabilities)
    if tuple(labels.shape) != (*probabilities.shape[3:], 3):
        raise InputError(
            f"labels have shape {tuple(labels.shape)}; {(*probabilities.shape[3:], 3)} is needed: "
            "those the probabilities were computed for"
        )
