"""Labelled pairs on one common grid, and how a transform between them is judged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.geometry import Frame, ImageGeometry
from pddnet.interop.simpleitk import read_label_map, read_volume
from pddnet.metrics import dice, jacobian_determinant
from pddnet.point_samples import inside
from pddnet.points import slabs, transform_points_torch
from pddnet.synthetic import synthetic_patient
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, resample

ABDOMEN_SIZE, ABDOMEN_SPACING = (192, 160, 176), 2.0
BRAIN_SIZE, BRAIN_SPACING = (128, 128, 128), 1.8
MADE_UP_SIZE, MADE_UP_SPACING = (128, 108, 120), 3.0
CT_WINDOW = (-125.0, 275.0)
_BODY = 0.05  # of the window, as in the engine's presets
_LEAST_VOXELS = 60
_SMALLEST_DETERMINANT = 1e-9


@dataclass(frozen=True)
class Subject:
    """One labelled scan on the canvas; `window` is the range of its intensities that tells tissues apart."""

    name: str
    scan: Volume
    labels: LabelMap
    window: tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """Two subjects on one grid."""

    fixed: Subject
    moving: Subject

    @property
    def name(self) -> str:
        """moving onto fixed."""
        return f"{self.moving.name} onto {self.fixed.name}"


@dataclass(frozen=True)
class Judgement:
    """How good a transform is.

    Args:
        dice: by label.
        log_jacobian_std: inside the fixed body, where the moving scan shows something; determinants from 1e-9.
        folding_percent: share of the same voxels with a determinant of 0 or less.
    """

    dice: dict[int, float]
    log_jacobian_std: float
    folding_percent: float

    @property
    def mean_dice(self) -> float:
        """Mean over the labels."""
        return float(np.mean(list(self.dice.values())))


def canvas(size: tuple[int, int, int], spacing_mm: float) -> ImageGeometry:
    """A grid along LPS whose centre is the origin."""
    corner = [-(n - 1) * spacing_mm / 2 for n in size]
    return ImageGeometry(size, (spacing_mm,) * 3, (corner[0], corner[1], corner[2]))


def placed(
    name: str, scan: Volume, labels: LabelMap, grid: ImageGeometry, window: tuple[float, float] | None = None
) -> Subject:
    """A subject on the canvas, the centre of its field of view on the canvas's; outside lies its lowest value."""
    there = AffineTransform.translation(scan.geometry.centre - grid.centre)
    on_grid = resample(scan, grid, there)
    if window is None:
        low, high = np.quantile(on_grid.data[on_grid.data > on_grid.fill_value].numpy(), (0.01, 0.99))
        window = (float(low), float(high))
    return Subject(name, on_grid, resample(labels, grid, there), window)


def abdomens(data: Path) -> tuple[Pair, Pair, dict[int, str]]:
    """Patient a onto b, b onto a, and the organs' names."""
    folder, grid = data / "abdomen-ct", canvas(ABDOMEN_SIZE, ABDOMEN_SPACING)
    organs = {int(key): name for key, name in json.loads((folder / "organs.json").read_text()).items()}
    a, b = (
        placed(
            f"patient {p}",
            read_volume(folder / f"patient-{p}-ct.nii.gz"),
            read_label_map(folder / f"patient-{p}-organs.nii.gz", organs),
            grid,
            CT_WINDOW,
        )
        for p in "ab"
    )
    return Pair(fixed=b, moving=a), Pair(fixed=a, moving=b), organs


def brains(data: Path) -> tuple[Pair, Pair]:
    """Subject a onto b, b onto a."""
    folder, grid = data / "brain-mr", canvas(BRAIN_SIZE, BRAIN_SPACING)
    a, b = (
        placed(
            f"subject {s}",
            read_volume(folder / f"subject-{s}-t1.nii.gz"),
            read_label_map(folder / f"subject-{s}-aseg.nii.gz"),
            grid,
        )
        for s in "ab"
    )
    return Pair(fixed=b, moving=a), Pair(fixed=a, moving=b)


def counted_labels(pair: Pair) -> list[int]:
    """The labels of more than 60 voxels in both."""
    counts = [torch.bincount(s.labels.data.flatten().long()) for s in (pair.fixed, pair.moving)]
    both = range(1, min(len(count) for count in counts))
    return [n for n in both if all(int(count[n]) > _LEAST_VOXELS for count in counts)]


def body(subject: Subject) -> torch.Tensor:
    """Voxels (D, H, W), bool, at or next to tissue."""
    low, high = subject.window
    tissue = (subject.scan.data > low + _BODY * (high - low)).float()
    grown: torch.Tensor = F.max_pool3d(tissue[None, None], 3, 1, 1)[0, 0]
    return grown > 0.5


def judged(pair: Pair, transform: SpatialTransform) -> Judgement:
    """Dice of the labels that count, and how regular a transform (fixed -> moving, mm LPS) is in the body."""
    grid = pair.fixed.scan.geometry
    scores = dice(pair.fixed.labels, resample(pair.moving.labels, grid, transform))
    field = (
        transform
        if isinstance(transform, DisplacementField)
        else DisplacementField.sampled(transform, grid, grid)
    )
    determinant = jacobian_determinant(field, grid).data[body(pair.fixed) & _shown(pair, transform)]
    return Judgement(
        {n: scores[n] for n in counted_labels(pair)},
        float(determinant.clamp(min=_SMALLEST_DETERMINANT).log().std()),
        100 * float((determinant <= 0).float().mean()),
    )


def _shown(pair: Pair, transform: SpatialTransform) -> torch.Tensor:
    """Where the fixed grid's points (D, H, W) land inside the moving grid, its outermost voxels left out."""
    fixed, moving = pair.fixed.scan.geometry, pair.moving.scan.geometry
    inner = moving.cropped((1, 1, 1), tuple(n - 2 for n in moving.size))  # type: ignore[arg-type]
    to_index = inner.matrix(Frame.LPS, Frame.INDEX)
    shown = torch.empty(fixed.shape, dtype=torch.bool)
    for rows, points in slabs(fixed):
        shown[rows] = inside(transform_points_torch(to_index, transform.apply(points)), inner.shape)
    return shown


def made_up_patients(seeds: tuple[int, int]) -> Pair:
    """Two synthetic patients on one grid, the second onto the first."""
    fixed, moving = (
        Subject(f"synthetic {seed}", made.ct, made.labels, CT_WINDOW)
        for seed in seeds
        for made in [synthetic_patient(seed, MADE_UP_SIZE, MADE_UP_SPACING)]
    )
    return Pair(fixed, moving)
