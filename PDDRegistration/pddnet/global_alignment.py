"""The global stage: which affine transform to start from.

Candidates are the scanner's coordinates, the centres of the fields of view, the centres of the bodies, and what a
descent on the features finds, rigid and then affine, from the best of these and of all shifts after some turns. Each is
judged by the dissimilarity of features over both bodies; the start is left only for a candidate that is clearly better.
A moving scan that fits much better upside down or front to back is reported, not turned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pddnet.affine_descent import Freedom, descend
from pddnet.config import GlobalStage
from pddnet.geometry import Matrix
from pddnet.placed_scans import PlacedScan, ScanPair
from pddnet.shift_search import ShiftSearch
from pddnet.warp import AffineTransform

Hook = Callable[[], None]

_CLEARLY_BETTER = 0.95  # the start is left for less than this share of its dissimilarity,
_LEAST_GAIN = 0.005  # and for at least so much less
_REWEIGHTINGS = 10
_TURN_DEGREES = 20.0
_SHIFTS = 3  # that are looked at after each turn
_STARTS = 2  # that go down beside the one that was given
_RIGID_STEPS, _AFFINE_STEPS, _FINE_STEPS = 4, 5, 4
_STRETCHES = (0.6, 1.6)  # that an affine candidate may have
# a flipped scan is reported where it explains so many times as much, or leaves so small a share unexplained
_FLIP_EXPLAINS, _FLIP_LEAVES = 1.2, 0.7
_FLIP_LEAST = 0.25  # noise explains up to 0.2 of a body; below this nothing fits
_FITS_WELL = 0.2  # a dissimilarity so small needs no second look


@dataclass(frozen=True)
class Candidate:
    """A start: where it came from, the transform fixed -> moving (mm, LPS), its dissimilarity (0 same, 1 strangers)."""

    name: str
    transform: AffineTransform
    dissimilarity: float


@dataclass(frozen=True)
class Alignment:
    """What the global stage found: the candidates, the one to use first, and sentences for the user."""

    starts: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CoarseScans:
    """Both scans on isotropic grids of the same spacing.

    Args:
        fixed: the fixed scan.
        moving: the moving scan as it lies after the initial transform, in the fixed scan's space.
        between_centres: from the centre of the fixed to that of the moving field of view, mm LPS.
    """

    fixed: PlacedScan
    moving: PlacedScan
    between_centres: Matrix

    @cached_property
    def pair(self) -> ScanPair:
        """Cropped to the bodies."""
        return ScanPair(self.fixed.around_body(), self.moving.around_body())

    @cached_property
    def half(self) -> ScanPair:
        """On grids of twice the spacing."""
        return self.pair.halved()


@dataclass(frozen=True)
class _Start:
    """A named transform, 4x4, and its price on the coarser grids."""

    name: str
    matrix: Matrix
    price: float = 0.0


def align_globally(scans: CoarseScans, stage: GlobalStage, search: bool, between_steps: Hook) -> Alignment:
    """All candidates that were judged, the one to use first, and what to tell the user.

    Args:
        stage: "translation" leaves out turns and stretches.
        search: False where the user gave an initial transform, which is then only refined.
        between_steps: called often; a caller may stop there.
    """
    given = _Start("scanner coordinates" if search else "initial transform", np.eye(4))
    if not bool(scans.half.counted.any()):
        return Alignment((_judged(scans, given),))
    simple = [given, *_centred(scans)] if search else [given]
    way = _Way(scans, stage != "translation", between_steps)
    coarse = way.coarse([given, *(way.promising(simple[1:]) if search else ())])
    candidates = []
    for start in (*simple, way.fine(coarse)):
        between_steps()
        candidates.append(_judged(scans, start))
    best = min(candidates, key=lambda candidate: candidate.dissimilarity)
    before = candidates[0].dissimilarity
    if best.dissimilarity >= min(_CLEARLY_BETTER * before, before - _LEAST_GAIN):
        best = candidates[0]
    starts = (best, *(candidate for candidate in candidates if candidate is not best))
    return Alignment(starts, way.flip_warnings(coarse.price) if search and way.turning else ())


@dataclass(frozen=True)
class _Way:
    """From a few simple starts to the best transform."""

    scans: CoarseScans
    turning: bool
    between_steps: Hook

    @cached_property
    def _shifts(self) -> ShiftSearch:
        return ShiftSearch(self.scans.half)

    def promising(self, simple: list[_Start]) -> list[_Start]:
        """The best of `simple` and of all shifts after some turns."""
        turns = [("shift", np.eye(3)), *(_turns() if self.turning else ())]
        starts = [self._priced(start.name, start.matrix) for start in simple]
        starts += [start for name, linear in turns for start in self._after(name, linear, _SHIFTS)]
        return sorted(starts, key=lambda start: start.price)[:_STARTS]

    def coarse(self, starts: list[_Start]) -> _Start:
        """The best that the descents from `starts` find on the coarser grids."""
        shifted = [self._descended(start, self._rigid, _RIGID_STEPS) for start in starts]
        shifted.sort(key=lambda start: start.price)
        if not self.turning:
            return shifted[0]
        stretched = [self._descended(start, "affine", _AFFINE_STEPS) for start in shifted[:2]]
        return min((shifted[0], *stretched), key=lambda start: start.price)

    def fine(self, start: _Start) -> _Start:
        """A start refined on the finer grids."""
        freedom: Freedom = "affine" if self.turning else self._rigid
        found = descend(self.scans.pair, start.matrix, freedom, _FINE_STEPS, self.between_steps)
        return _Start(f"{freedom} from {start.name}", found.transform, found.price)

    def flip_warnings(self, price: float) -> tuple[str, ...]:
        """What to say if the moving scan, turned or mirrored, fits much better than at `price`.

        Left and right are not told apart: most of a body is nearly symmetric.
        """
        if price < _FITS_WELL:
            return ()
        starts = [start for name, linear in _flips() for start in self._after(name, linear, 1)]
        best = self.coarse([min(starts, key=lambda start: start.price)])
        explained, before = 1 - best.price, max(0.0, 1 - price)
        if explained < _FLIP_LEAST or (
            explained < _FLIP_EXPLAINS * before and best.price > _FLIP_LEAVES * price
        ):
            return ()
        return (
            f"the moving scan fits much better when it is flipped {best.name} (dissimilarity {best.price:.2f} instead "
            f"of {price:.2f}): check how the patient lay and the direction in both scans' headers. Nothing was flipped",
        )

    @property
    def _rigid(self) -> Freedom:
        return "rigid" if self.turning else "translation"

    def _after(self, name: str, linear: Matrix, count: int) -> list[_Start]:
        return [self._priced(name, matrix) for matrix in self._shifts.best(linear, count)]

    def _priced(self, name: str, matrix: Matrix) -> _Start:
        self.between_steps()
        return _Start(name, matrix, self.scans.half.compare(matrix).dissimilarity)

    def _descended(self, start: _Start, freedom: Freedom, steps: int) -> _Start:
        found = descend(self.scans.half, start.matrix, freedom, steps, self.between_steps)
        return _Start(start.name, found.transform, found.price)


def _centred(scans: CoarseScans) -> list[_Start]:
    between_bodies = scans.pair.moving.body_centre - scans.pair.fixed.body_centre
    shifts = {"centres": scans.between_centres, "bodies": between_bodies}
    return [_Start(name, AffineTransform.translation(shift).matrix) for name, shift in shifts.items()]


def _judged(scans: CoarseScans, start: _Start) -> Candidate:
    dissimilarity = scans.pair.compare(start.matrix).dissimilarity
    return Candidate(start.name, AffineTransform(start.matrix), dissimilarity)


def _turns() -> list[tuple[str, Matrix]]:
    """Rotations (3x3, LPS) about each axis, both ways."""
    cosine, sine = np.cos(np.deg2rad(_TURN_DEGREES)), np.sin(np.deg2rad(_TURN_DEGREES))
    turns = []
    for axis, sign in itertools.product(range(3), (1, -1)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = cosine
        turn[a, b], turn[b, a] = -sign * sine, sign * sine
        turns.append((f"a turn of {sign * _TURN_DEGREES:+.0f} degrees about {'LPS'[axis]}", turn))
    return turns


def _flips() -> list[tuple[str, Matrix]]:
    """Front to back, head to feet or both, as a mirror and as a half turn (3x3, LPS)."""
    names = {(-1, 1): "front to back", (1, -1): "head to feet", (-1, -1): "front to back and head to feet"}
    return [
        (name, np.diag([float(left), *map(float, signs)]))
        for signs, name in names.items()
        for left in (1, -1)
    ]


def robust_affine(source: torch.Tensor, target: torch.Tensor) -> Matrix | None:
    """The 4x4 matrix that takes most of the points `source` (N, 3) to `target`; None for fewer than 16 points.

    Iteratively reweighted least squares with Geman-McClure weights, their scale the median residual.
    """
    if len(source) < 16:
        return None
    centre = source.mean(0)
    design = torch.cat((source - centre, torch.ones(len(source), 1, dtype=source.dtype)), 1)
    weights = torch.ones(len(source), dtype=source.dtype)
    solution = torch.zeros(4, 3, dtype=source.dtype)
    for _ in range(_REWEIGHTINGS):
        weighted = design * weights[:, None]
        ridge = 1e-9 * torch.eye(4, dtype=source.dtype) * len(source)
        solution = torch.linalg.solve(weighted.T @ design + ridge, weighted.T @ target)
        residual = (design @ solution - target).square().sum(1)
        weights = (1 + residual / residual.median().clamp(min=1e-6)).pow(-2)
    matrix = np.eye(4)
    matrix[:3, :3] = solution[:3].T.numpy()
    matrix[:3, 3] = (solution[3] - centre @ solution[:3]).numpy()
    return matrix
