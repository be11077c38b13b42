"""Discrete regularisation: min-convolution over labels and mean field over control points, twice.

Volumes are (Kd, Kh, Kw, Ld, Lh, Lw): control points first, displacement labels last. Displacements are
normalised and written (x, y, z). Source: Heinrich, MICCAI 2019, section 2.3; the padding is that of the
published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn

from pddnet.all_cores import Hook
from pddnet.errors import InputError
from pddnet.label_moments import probability_writer
from pddnet.message_passing import accumulator, check_volume, min_convolution
from pddnet.message_passing import mean_field as average_neighbours
from pddnet.rounds import RoundScales, run_rounds

Scalar = float | torch.Tensor


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

    def numbers(self) -> RegularisationWeights:
        """The same six as numbers; where they are on a GPU this waits for it, once for all."""
        scalars = list(vars(self).values())
        if any(isinstance(scalar, torch.Tensor) for scalar in scalars):
            like = next(scalar for scalar in scalars if isinstance(scalar, torch.Tensor)).detach()
            scalars = torch.stack([torch.as_tensor(scalar).to(like) for scalar in scalars]).tolist()
        return RegularisationWeights(*scalars)

    def scales(self) -> RoundScales:
        """The products that matter, as numbers."""
        w = self.numbers()
        data = float(w.data_weight)
        return RoundScales(data, float(w.repeat_weight) * data, float(w.message_weight), float(w.sharpness))

    def need_gradient(self) -> bool:
        """Whether any of them is a tensor that is trained."""
        return any(isinstance(s, torch.Tensor) and s.requires_grad for s in vars(self).values())


PUBLISHED_WEIGHTS = RegularisationWeights(1.1337, 0.0761, 1.0533, -0.7469, 0.0728, 1.1337)
INITIAL_WEIGHTS = RegularisationWeights(1.0, 0.1, 1.0, 1.0, 0.1, 1.0)


class Regularisation(nn.Module):
    """Owns the six trainable scalars; what they do, with or without the mean field, is `regularise`."""

    def __init__(self, weights: RegularisationWeights = INITIAL_WEIGHTS, *, mean_field: bool = True) -> None:
        super().__init__()
        self.mean_field = mean_field
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
        return regularise(
            dissimilarity, self.weights, mean_field=self.mean_field, between_chunks=between_chunks
        )


def regularise(
    dissimilarity: torch.Tensor,
    weights: RegularisationWeights,
    *,
    mean_field: bool = True,
    between_chunks: Hook | None = None,
) -> torch.Tensor:
    """Two rounds of min-convolution and mean field, then the softmax over labels.

    Args:
        dissimilarity: (Kd, Kh, Kw, Ld, Lh, Lw), any floating type; half precision is widened piece by piece.
        weights: the six scalars.
        mean_field: False leaves out what neighbouring control points say to each other (the paper's "w/o MF").
        between_chunks: called between pieces of work; what it raises ends the computation.

    Returns:
        Probabilities of the same shape, float32 at least, the sum over the last three axes 1. Beside the
        argument only this volume is held in memory, unless a gradient is asked for or the mean field left out.
    """
    check_volume("dissimilarity", dissimilarity)
    differentiable = torch.is_grad_enabled() and (dissimilarity.requires_grad or weights.need_gradient())
    if differentiable or not mean_field:
        return _regularise_whole(dissimilarity, weights, mean_field, between_chunks)
    depth, height, width, *labels = dissimilarity.shape
    data = dissimilarity.flatten(3).transpose(2, 3)  # (Kd, Kh, L, Kw)
    out = accumulator(dissimilarity).new_empty(depth, height, width, data.shape[2])
    run_rounds(
        data.__getitem__,
        (depth, height, width),
        labels,
        weights.scales(),
        [probability_writer(out)],
        out,
        between_chunks=between_chunks,
    )
    return out.view(dissimilarity.shape)


def softmax_over_labels(cost: torch.Tensor, sharpness: Scalar = 1.0) -> torch.Tensor:
    """Probabilities exp(-sharpness * cost) / sum, over the last three axes of (Kd, Kh, Kw, Ld, Lh, Lw)."""
    check_volume("cost", cost)
    return torch.softmax(-sharpness * cost.to(accumulator(cost).dtype).flatten(3), 3).view(cost.shape)


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
    check_volume("probabilities", probabilities)
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


def _regularise_whole(
    dissimilarity: torch.Tensor, w: RegularisationWeights, mean_field: bool, between_chunks: Hook | None
) -> torch.Tensor:
    """Volume after volume, differentiable.

    For the gradient the dissimilarities, both inputs of a min-convolution, the message, the costs and the
    probabilities are kept: six volumes. The filters go through blocks of their input again.
    """

    def filtered(cost: torch.Tensor) -> torch.Tensor:
        envelope = min_convolution(cost, between_chunks=between_chunks)
        return average_neighbours(envelope, between_chunks=between_chunks) if mean_field else envelope

    data = w.data_weight * dissimilarity.to(accumulator(dissimilarity).dtype) + w.data_bias
    message = filtered(data)
    cost = filtered(w.repeat_weight * data + w.message_weight * message + w.message_bias)
    return softmax_over_labels(cost, w.sharpness)


def _check_labels(probabilities: torch.Tensor, labels: torch.Tensor) -> None:
    check_volume("probabilities", probabilities)
    if tuple(labels.shape) != (*probabilities.shape[3:], 3):
        raise InputError(
            f"labels have shape {tuple(labels.shape)}; {(*probabilities.shape[3:], 3)} is needed: "
            "those the probabilities were computed for"
        )
