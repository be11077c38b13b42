"""Two rounds of min-convolution and mean field without gradients, plane of control points by plane.

A mean field reaches two planes either way. So a few planes of each round are all that exists at any time; the
six-dimensional volume is never written. Planes are (Kh, L, Kw), the points along x last: every filter is then a shift
or a matrix product of long runs, and nothing is permuted. Source: Heinrich, MICCAI 2019, section 2.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pddnet.all_cores import Hook, Worker, share_out
from pddnet.label_filter import FILTER, LabelFilter, band_matrix
from pddnet.label_moments import Reader
from pddnet.message_passing import accumulator, rows_at_once, runs_at_once

OnStage = Callable[[str, float], None]
Planes = Callable[[int], torch.Tensor]
Fill = Callable[[slice, torch.Tensor], object]

_REACH = len(FILTER) // 2  # planes that a mean field looks ahead and back
PLANES_ASKED_FOR = _REACH + 1  # how many planes of dissimilarities are in use at once
STAGES = ("dissimilarity", "round 1", "round 2", "softmax and expectation")


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
    planes: Planes,
    grid: tuple[int, int, int],
    labels: Sequence[int],
    scales: RoundScales,
    readers: Sequence[Reader],
    like: torch.Tensor,
    *,
    on_stage: OnStage | None = None,
    between_chunks: Hook | None = None,
) -> None:
    """Hand the logits, -sharpness times the costs after two rounds, to the readers.

    Args:
        planes: dissimilarities (Kh, L, Kw) of one plane, in any order in memory and any floating type; called for
            plane after plane, and each must last until two more are asked for.
        grid: control points (Kd, Kh, Kw).
        labels: (Ld, Lh, Lw), their product is L.
        like: the type planes are kept in between rounds, and the device.
    """
    clock = _Clock(like.device if on_stage is not None else torch.device("cpu"))
    first = _Round(grid, labels, scales.message, like, between_chunks)
    second = _Round(grid, labels, -scales.sharpness, like, between_chunks)
    data: dict[int, torch.Tensor] = {}

    def fill_first(plane: int) -> Fill:
        return lambda rows, source: source.copy_(data[plane][rows].transpose(0, 1)).mul_(scales.first)

    def fill_second(plane: int) -> Fill:
        def fill(rows: slice, source: torch.Tensor) -> None:
            message = first.average(plane, rows).transpose(0, 1)  # (L, rows, Kw)
            torch.add(message, data[plane][rows].transpose(0, 1), alpha=scales.again, out=source)

        return fill

    for plane in range(grid[0]):
        with clock.of("dissimilarity"):
            data[plane] = planes(plane)
        with clock.of("round 1"):
            first.take(plane, fill_first(plane))
        for ready in _ready_after(plane, grid[0]):
            with clock.of("round 2"):
                second.take(ready, fill_second(ready))
            del data[ready]
            for finished in _ready_after(ready, grid[0]):
                with clock.of("softmax and expectation"):
                    second.hand_out(finished, readers)
    if on_stage is not None:
        for stage in STAGES:
            on_stage(stage, clock.seconds[stage])


class _Round:
    """Min-convolution and mean field of planes as they come; the last planes, averaged along x and y, are kept."""

    def __init__(
        self,
        grid: tuple[int, int, int],
        labels: Sequence[int],
        scale: float,
        like: torch.Tensor,
        between_chunks: Hook | None,
    ) -> None:
        depth, height, width = grid
        numbers = accumulator(like)
        count = torch.Size(labels).numel()
        self._labels, self._hook, self._numbers = labels, between_chunks, numbers
        self._kept = like.new_zeros(2 * _REACH + 1, height, count, width)  # plane k at k modulo their number
        self._plane = numbers.new_empty(height, count, width)
        self._along_x = band_matrix(width, FILTER, like=numbers).T.contiguous()
        self._along_y = band_matrix(height, FILTER, like=numbers)
        self._along_z = _for_kept(scale * band_matrix(depth, FILTER, like=numbers), len(self._kept))
        self._at_once = rows_at_once(self._plane)
        self._filters: dict[int, LabelFilter] = {}  # of each thread

    def take(self, plane: int, fill: Fill) -> None:
        """Convolve the next plane, whose rows `fill` writes to (L, rows, Kw)."""
        rows, width = self._at_once, self._plane.shape[2]
        along_x = self._along_x.expand(rows, -1, -1)

        def make_worker(thread: int) -> Worker:
            if thread not in self._filters:
                self._filters[thread] = LabelFilter(self._labels, rows * width, self._numbers)
            envelope = self._filters[thread]
            source, result = (t.view(-1, rows, width) for t in (envelope.source, envelope.result))

            def work(number: int) -> None:
                here = slice(number * rows, (number + 1) * rows)
                fill(here, source)
                envelope.run()
                torch.bmm(result.transpose(0, 1), along_x, out=self._plane[here])

            return work

        share_out(len(self._plane) // rows, make_worker, self._plane.device, self._hook)
        self._keep(plane)

    def average(self, plane: int, rows: slice) -> torch.Tensor:
        """Rows of a plane averaged along z, times the scale: (rows, L, Kw)."""
        kept = self._kept[:, rows]
        weights = self._along_z[plane : plane + 1]
        return (weights @ kept.flatten(1).to(weights.dtype)).view(kept.shape[1:])

    def hand_out(self, plane: int, readers: Sequence[Reader]) -> None:
        """Show a plane averaged along z to the readers, a block of rows at a time."""

        def work(number: int) -> None:
            rows = slice(number * self._at_once, (number + 1) * self._at_once)
            logits = self.average(plane, rows)
            for read in readers:
                read(plane, rows, logits)

        blocks = len(self._plane) // self._at_once
        share_out(blocks, lambda _: work, self._plane.device, self._hook)

    def _keep(self, plane: int) -> None:
        """Average along y into the place of the oldest plane."""
        source, target = self._plane.flatten(1), self._kept[plane % len(self._kept)].flatten(1)
        step = runs_at_once(source)

        def work(number: int) -> None:
            here = slice(number * step, (number + 1) * step)
            if target.dtype == source.dtype:
                torch.mm(self._along_y, source[:, here], out=target[:, here])
            else:
                target[:, here] = self._along_y @ source[:, here]

        share_out(-(-source.shape[1] // step), lambda _: work, source.device, self._hook)


class _Clock:
    """Seconds spent on each stage; a GPU is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[stage] += time.perf_counter() - start


def _for_kept(along_z: torch.Tensor, kept: int) -> torch.Tensor:
    """The weights (Kd, Kd) of a band of planes for where they are kept: (Kd, kept)."""
    weights = along_z.new_zeros(len(along_z), kept)
    for plane in range(len(along_z)):
        for other in range(max(0, plane - _REACH), min(len(along_z), plane + _REACH + 1)):
            weights[plane, other % kept] = along_z[plane, other]
    return weights


def _ready_after(plane: int, depth: int) -> range:
    """The planes whose neighbours are all there once this one is, and were not before."""
    return range(max(0, plane - _REACH), depth if plane == depth - 1 else plane - _REACH + 1)
