"""The 6-D layers on made-up features: dissimilarities, two rounds of min-convolution and mean field, expectation.

Volumes are (Kd, Kh, Kw, Ld, Lh, Lw): control points first, displacement labels last. Displacements are normalised and
written (x, y, z).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pddnet.benchmarks.machine import MachineLimits, Work, now
from pddnet.errors import InputError, InsufficientMemoryError
from pddnet.memory import available_memory_mb, peak_memory_mb
from pddnet.network import PAPER_LEVEL, Level
from pddnet.regularisation import PUBLISHED_WEIGHTS
from pddnet.search import displacement_from_features

FEATURE_SHAPE = (
    95,
    56,
    77,
)  # (D, H, W): a third of the paper's scans of 233 x 168 x 286 voxels, as Obelisk makes them
_COARSE_SHAPE = (
    12,
    7,
    10,
)  # of the noise that is interpolated to features: they vary over some eight samples
_OWN_NOISE = 0.3  # what the moving features have of their own
_FLOAT_BYTES = 4
_PLANES_HELD = 16  # of control points: dissimilarities, and those that the mean field of each round averages
_BASE_MB = 500.0

# Operations for each control point and label. A box filter applied twice is four additions along each of three axes,
# the minimum of three neighbours two comparisons.
_MEAN_FIELD, _MIN_CONVOLUTION = 3 * 4, 3 * 2 + 3 * 4
_FIRST_COMBINATION, _SECOND_COMBINATION = 2, 4  # a * data + b; the same and a message
_FOUND = 3 + 3 + 1  # numbers for each control point: expectation, variance, entropy
_SOFTMAX, _MOMENTS, _ENTROPY = (
    3,
    3 * 4,
    2,
)  # scale, exponential, sum; mean and square along each axis; p * log p


@dataclass(frozen=True)
class LayerProblem:
    """One search, on made-up features.

    Args:
        control_points, labels: per axis (the paper's 32 and 15).
        channels: of the features (the paper's 16).
        seed: of the features.

    Raises:
        InputError: a count below 1 or a negative seed.
    """

    control_points: int = 32
    labels: int = 15
    channels: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.control_points, self.labels, self.channels) < 1 or self.seed < 0:
            raise InputError(
                f"{self.control_points} control points, {self.labels} labels, {self.channels} channels and seed "
                f"{self.seed} were asked for; counts of at least 1 and a seed of at least 0 are needed"
            )

    @property
    def level(self) -> Level:
        """The search."""
        return Level.cubic(self.control_points, self.labels, PAPER_LEVEL.reach[0])

    @property
    def entries(self) -> int:
        """Numbers in a 6-D volume."""
        return int((self.control_points * self.labels) ** 3)

    def features(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Smooth random features of a fixed and a moving scan, (1, C, D, H, W) each, in part the same."""
        generator = torch.Generator().manual_seed(self.seed)
        common, own = torch.randn((2, 1, self.channels, *_COARSE_SHAPE), generator=generator)
        pair = (common, (1 - _OWN_NOISE) * common.roll(1, -1) + _OWN_NOISE * own)
        fixed, moving = (
            F.interpolate(noise, FEATURE_SHAPE, mode="trilinear", align_corners=True).to(device)
            for noise in pair
        )
        return fixed, moving


@dataclass(frozen=True)
class LayerRun:
    """One pass through the layers: seconds in all and by stage, and the expected displacements (Kd, Kh, Kw, 3)."""

    seconds: float
    stages: dict[str, float]
    displacement: torch.Tensor


@torch.no_grad()
def run_layers(problem: LayerProblem, fixed: torch.Tensor, moving: torch.Tensor) -> LayerRun:
    """Run and time the layers once on `problem.features()`."""
    points, labels = problem.level.points(fixed), problem.level.labels(fixed)
    stages: dict[str, float] = {}
    began = now(fixed.device)
    found = displacement_from_features(
        fixed, moving, points, labels, PUBLISHED_WEIGHTS, on_stage=stages.__setitem__
    )
    return LayerRun(now(fixed.device) - began, stages, found.displacement)


def least_work(problem: LayerProblem) -> Work:
    """What the layers have to do if all between features and moments stays in the caches.

    Read are the features, written is what is found of each control point: expectation, variance, entropy. Squared
    differences are a product of matrices, 2 operations for each channel.
    """
    numbers = 2 * problem.channels * math.prod(FEATURE_SHAPE) + _FOUND * problem.control_points**3
    rounds = _FIRST_COMBINATION + _SECOND_COMBINATION + 2 * (_MIN_CONVOLUTION + _MEAN_FIELD)
    operations = 2 * problem.channels + rounds + _SOFTMAX + _MOMENTS + _ENTROPY
    return Work(float(_FLOAT_BYTES * numbers), float(operations * problem.entries))


def pass_bytes(problem: LayerProblem) -> float:
    """What goes through memory where each pass reads and writes 6-D volumes of float32.

    Written: dissimilarities. Twice min-convolution and mean field: read and written; the second min-convolution reads
    the dissimilarities again, softmax and expectation need no pass of their own after the last mean field.
    """
    return float(9 * _FLOAT_BYTES * problem.entries)


def peak_mb(device: torch.device) -> float:
    """The most memory so far: of the process, or of its tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_memory_mb()


def check_memory(problem: LayerProblem, device: torch.device) -> None:
    """Refuse a problem that will not fit.

    Raises:
        InsufficientMemoryError: the device has too little free memory.
    """
    needed = _BASE_MB + _PLANES_HELD * _FLOAT_BYTES * problem.entries / problem.control_points / 1e6
    free = torch.cuda.mem_get_info(device)[0] / 1e6 if device.type == "cuda" else available_memory_mb()
    if needed > free:
        raise InsufficientMemoryError(
            f"these layers need about {needed:.0f} MB and {free:.0f} MB are free on {device}; "
            "take fewer control points or labels"
        )


def layer_report(
    problem: LayerProblem, runs: Sequence[LayerRun], limits: MachineLimits, peak: float
) -> dict[str, Any]:
    """What `pddnet bench layers --json` prints; seconds and stages are those of the run of median length.

    `peak` is the memory of one run: the allocator may put those that follow elsewhere.
    """
    median = sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]
    work = least_work(problem)
    least = limits.least_seconds(work)
    return {
        "control_points": problem.control_points,
        "labels": problem.labels,
        "channels": problem.channels,
        "seconds": median.seconds,
        "stages": median.stages,
        "peak_mb": peak,
        "volume_mb": _FLOAT_BYTES * problem.entries / 1e6,
        "all_seconds": [run.seconds for run in runs],
        "least_bytes": work.bytes,
        "least_flops": work.flops,
        "pass_bytes": pass_bytes(problem),
        "least_seconds": least,
        "fraction_of_limit": least / median.seconds,
        "limits": asdict(limits),
    }
