"""The global stage: which affine transform to start from.

Candidates are the scanner's coordinates, the centres of the fields of view, the centres of the bodies, and an affine
transform fitted robustly to what a coarse search finds from the best of these. Each is judged by the dissimilarity of
MIND-SSC features inside the fixed body; the start is left only for a candidate that is clearly better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.config import GlobalStage, LatticeLevel
from pddnet.features.mind_ssc import mind_ssc
from pddnet.geometry import Frame, ImageGeometry, Matrix
from pddnet.lattice import Lattice
from pddnet.levels import FIELD_STEP, FieldPair, LevelSettings, fitted_to, run_level
from pddnet.points import transform_points_torch, transform_vectors_torch
from pddnet.preprocessing import WorkingScan
from pddnet.warp import AffineTransform

Resampled = Callable[[AffineTransform], WorkingScan]

_SEARCHES = (
    LatticeLevel(
        step=4, spacing=8, reach=32, features="coarse", sub=2, couplings=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    ),
    LatticeLevel(step=4, spacing=4, reach=12, features="coarse", sub=2, couplings=(0.002, 0.01, 0.05, 0.25)),
    # less than half a step is not seen by the two above: of small turns this finds most
    LatticeLevel(step=2, spacing=4, reach=8, features="coarse", couplings=(0.002, 0.01, 0.05, 0.25)),
)
_CLEARLY_BETTER = 0.98
_SCALES = (0.6, 1.6)  # singular values an affine candidate may have
_REWEIGHTINGS = 10


@dataclass(frozen=True)
class Candidate:
    """A start: where it came from, the transform fixed -> moving (mm, LPS), its dissimilarity (lower is better)."""

    name: str
    transform: AffineTransform
    dissimilarity: float


@dataclass(frozen=True)
class CoarseScans:
    """Both scans for the global stage.

    Args:
        grid: isotropic, about twice the working spacing, over the fixed field of view.
        fixed: the fixed scan on it.
        moving: the moving scan on it, through a transform of grid points.
        fixed_centre, moving_centre: of the fields of view, mm LPS.
    """

    grid: ImageGeometry
    fixed: WorkingScan
    moving: Resampled
    fixed_centre: Matrix
    moving_centre: Matrix


def align_globally(
    scans: CoarseScans, stage: GlobalStage, search_translations: bool, between_chunks: Callable[[], None]
) -> list[Candidate]:
    """All candidates that were judged, the one to use first.

    Args:
        stage: "translation" tries the centres only, "affine" fits one as well.
        search_translations: False where the user gave an initial transform, which is then only refined.
    """
    features = _features(scans.fixed)

    def judged(name: str, transform: AffineTransform) -> Candidate:
        between_chunks()
        return Candidate(name, transform, _dissimilarity(scans.fixed, features, scans.moving(transform)))

    tried = [
        judged(
            "scanner coordinates" if search_translations else "initial transform", AffineTransform.identity()
        )
    ]
    if search_translations:
        tried.append(judged("centres", AffineTransform.translation(scans.moving_centre - scans.fixed_centre)))
        for start in list(tried):
            shift = _body_shift(scans, start.transform)
            tried.append(
                judged(
                    f"bodies from {start.name}",
                    start.transform.followed_by(AffineTransform.translation(shift)),
                )
            )
    best = min(tried, key=lambda candidate: candidate.dissimilarity)
    best = best if best.dissimilarity < _CLEARLY_BETTER * tried[0].dissimilarity else tried[0]
    if stage == "affine":
        for number, level in enumerate(_SEARCHES, 1):
            fitted = _fitted(scans, best.transform, level, between_chunks)
            if fitted is not None:
                tried.append(judged(f"affine {number} from {best.name}", fitted))
                best = tried[-1] if tried[-1].dissimilarity < _CLEARLY_BETTER * best.dissimilarity else best
    return [best, *(candidate for candidate in tried if candidate is not best)]


def _features(scan: WorkingScan) -> torch.Tensor:
    return torch.cat((mind_ssc(scan.image[None], dilation=1)[0], scan.image))  # (13, D, H, W)


def _dissimilarity(fixed: WorkingScan, features: torch.Tensor, moving: WorkingScan) -> float:
    """Mean over the fixed body of the squared feature difference; that of strangers where nothing is known."""
    body = fixed.body if bool(fixed.body.any()) else fixed.known
    count = body.sum().clamp(min=1)
    mean = (features * body).sum((1, 2, 3), keepdim=True) / count
    strangers = 2 * ((features - mean).square().sum(0) * body).sum() / count
    difference = (features - _features(moving)).square().sum(0, keepdim=True)
    return float((torch.where(moving.known > 0, difference, strangers) * body).sum() / count)


def _body_shift(scans: CoarseScans, transform: AffineTransform) -> Matrix:
    """Moving minus fixed centre of mass of the bodies, mm LPS, with the moving scan seen through `transform`."""
    moving = scans.moving(transform)
    shift = _centre_of_mass(moving.body) - _centre_of_mass(scans.fixed.body)
    step = torch.as_tensor(scans.grid.matrix(Frame.INDEX, Frame.LPS))
    return np.asarray(transform_vectors_torch((torch.as_tensor(transform.matrix) @ step).numpy(), shift))


def _centre_of_mass(body: torch.Tensor) -> torch.Tensor:
    mass = body[0].double()
    total = mass.sum().clamp(min=1e-6)
    centres = []
    for axis in (2, 1, 0):  # x, y, z
        profile = mass.sum([other for other in range(3) if other != axis])
        centres.append((profile * torch.arange(len(profile), device=body.device)).sum() / total)
    return torch.stack(centres).cpu()


def _fitted(
    scans: CoarseScans, start: AffineTransform, level: LatticeLevel, between_chunks: Callable[[], None]
) -> AffineTransform | None:
    """The affine transform that explains most of what a search from `start` finds; None if it is implausible."""
    voxels = scans.grid.shape
    fitting = fitted_to(level, voxels)
    if fitting is None:
        return None
    zero = FieldPair.zero(voxels, scans.fixed.image.device)
    found = run_level(
        scans.fixed, scans.moving(start), zero, fitting, LevelSettings(True, 1.0), between_chunks
    )
    half = Lattice.of_cells(voxels, FIELD_STEP)
    weights = F.avg_pool3d(scans.fixed.body[None], FIELD_STEP)[0, 0].flatten().double().cpu()
    index = torch.stack(
        torch.meshgrid(
            *(torch.arange(n, dtype=torch.float64) * half.step + half.first for n in half.shape),
            indexing="ij",
        ),
        -1,
    ).flip(-1)  # (D, H, W, 3) as (x, y, z) in voxels
    moved = index + found.forward.permute(1, 2, 3, 0).double().cpu()
    to_lps = scans.grid.matrix(Frame.INDEX, Frame.LPS)
    inside = weights > 0.5
    fixed_points, found_points = (
        transform_points_torch(to_lps, p.reshape(-1, 3)[inside]) for p in (index, moved)
    )
    matrix = robust_affine(fixed_points, start.apply(found_points))
    if matrix is None:
        return None
    sizes = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    plausible = _SCALES[0] <= sizes.min() and sizes.max() <= _SCALES[1] and np.linalg.det(matrix[:3, :3]) > 0
    return AffineTransform(matrix) if plausible else None


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
