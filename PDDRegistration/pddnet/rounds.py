"""Two rounds of min-convolution and mean field without gradients, and what is read off their costs.

While it is worked on a volume is (Kd, Kh, L, Kw), the points along x last; see `message_passing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pddnet.all_cores import Hook, Worker, share_out
from pddnet.message_passing import accumulator, average_planes, convolve_rows, rows_at_once

OnStage = Callable[[str, float], None]


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


@dataclass(frozen=True)
class RoundScales:
    """The numbers that matter of the six weights: the biases cancel in the softmax.

    Args:
        first: of the dissimilarities in the first round.
        again: of the dissimilarities in the second round.
        message: of what the first round says.
        sharpness: of the regularised costs before the softmax.
    """

    first: float
    again: float
    message: float
    sharpness: float


def run_rounds(
    data: torch.Tensor,
    volume: torch.Tensor,
    labels: Sequence[int],
    scales: RoundScales,
    *,
    on_stage: OnStage | None = None,
    between_chunks: Hook | None = None,
) -> None:
    """Write -sharpness times the cost after two rounds, which the softmax turns into probabilities, into `volume`.

    Args:
        data: dissimilarities (Kd*Kh, L, Kw), in any order in memory and any floating type.
        volume: (Kd, Kh, L, Kw), overwritten.
        labels: (Ld, Lh, Lw), their product is L.
    """
    messages = volume.flatten(0, 1)

    def first(rows: slice, target: torch.Tensor) -> None:
        target.copy_(data[rows].transpose(0, 1)).mul_(scales.first)

    def second(rows: slice, target: torch.Tensor) -> None:
        here, message = data[rows].transpose(0, 1), messages[rows].transpose(0, 1)  # (L, rows, Kw)
        torch.add(message, here, alpha=scales.again, out=target)

    with timed("round 1", on_stage, volume.device):
        convolve_rows(volume, labels, first, between_chunks)
        average_planes(volume, scales.message, between_chunks)
    with timed("round 2", on_stage, volume.device):
        convolve_rows(volume, labels, second, between_chunks)
        average_planes(volume, -scales.sharpness, between_chunks)


def softmax_in_place(volume: torch.Tensor, between_chunks: Hook | None = None) -> torch.Tensor:
    """Probabilities (Kd*Kh, Kw, L) of what `run_rounds` left in a contiguous (Kd, Kh, L, Kw), in the same memory."""
    rows = volume.flatten(0, 1)
    probabilities = rows.view(len(rows), rows.shape[2], -1)  # (Kd*Kh, Kw, L)
    at_once = rows_at_once(rows)

    def make_worker() -> Worker:
        def work(number: int) -> None:
            here = slice(number * at_once, (number + 1) * at_once)
            probabilities[here] = torch.softmax(rows[here].transpose(1, 2).contiguous(), 2)

        return work

    share_out(len(rows) // at_once, make_worker, volume.device, between_chunks)
    return probabilities


def read_moments(
    volume: torch.Tensor, labels: torch.Tensor, between_chunks: Hook | None = None
) -> LabelMoments:
    """Softmax, expectation, variance and entropy of what `run_rounds` left, in one pass that only reads.

    Args:
        volume: (Kd, Kh, L, Kw).
        labels: (Ld, Lh, Lw, 3), (x, y, z).
    """
    rows = volume.flatten(0, 1)
    at_once, like = rows_at_once(rows), accumulator(volume)
    flat = labels.reshape(-1, 3).to(like)
    powers = torch.cat((torch.ones_like(flat[:, :1]), flat, flat.square()), 1).T  # (7, L)
    powers = powers.contiguous().expand(at_once, -1, -1)
    sums = like.new_empty(len(rows), 8, rows.shape[2])  # (Kd*Kh, 1 | x y z | x^2 y^2 z^2 | surprise, Kw)

    def make_worker() -> Worker:
        logits, weights = (like.new_empty(at_once, *rows.shape[1:]) for _ in range(2))

        def work(number: int) -> None:
            here = slice(number * at_once, (number + 1) * at_once)
            values = rows[here].to(like.dtype)
            torch.sub(values, values.amax(1, keepdim=True), out=logits)
            torch.exp(logits, out=weights)
            torch.bmm(powers, weights, out=sums[here, :7])
            torch.sum(weights.mul_(logits), 1, out=sums[here, 7])

        return work

    share_out(len(rows) // at_once, make_worker, volume.device, between_chunks)
    return _moments(sums, (*volume.shape[:2], volume.shape[3]))


def _moments(sums: torch.Tensor, points: tuple[int, ...]) -> LabelMoments:
    total = sums[:, :1]
    means = (sums[:, 1:] / total).transpose(1, 2).reshape(*points, 7)
    mean, square = means[..., :3], means[..., 3:6]
    entropy = total.log().view(points) - means[..., 6]
    return LabelMoments(mean.contiguous(), (square - mean.square()).clamp(min=0), entropy)


@contextmanager
def timed(stage: str, on_stage: OnStage | None, device: torch.device) -> Iterator[None]:
    """Tell `on_stage` the name of the stage and its seconds; wait for a GPU only then."""
    start = time.perf_counter()
    yield
    if on_stage is not None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        on_stage(stage, time.perf_counter() - start)
