"""How well two segmentations agree, how far landmarks miss, and whether a displacement field is plausible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from pddnet.all_cores import share_out
from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry
from pddnet.points import SLAB_POINTS, plane_slabs, slabs, transform_vectors_torch
from pddnet.separable import Separable
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField, SpatialTransform

_SMALLEST_DETERMINANT, _LARGEST_DETERMINANT = 1e-9, 1e9
_FIRST_REACH_MM = 8.0
_PAIRS_PER_STEP = 2  # as many pairs as cost as much as one step of a voxel
_PAIRS_AT_ONCE = 1 << 20


def dice(a: LabelMap, b: LabelMap) -> dict[int, float]:
    """Dice overlap, 0 to 1, of each label that occurs in either map.

    Raises:
        InputError: the maps lie on different grids.
    """
    _check_same_grid(a, b)
    scores = {}
    for label in _labels_of_either(a, b):
        in_a, in_b = a.data == label, b.data == label
        shared, total = (in_a & in_b).count_nonzero(), in_a.count_nonzero() + in_b.count_nonzero()
        scores[label] = 2 * float(shared) / float(total)
    return scores


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm between the surfaces of one label in two maps; infinite where one map lacks the label.

    Args:
        hd95: the larger of the two directed 95th percentiles (the robust Hausdorff distance).
        assd: the average over all surface voxels of both maps of the distance to the other surface.
    """

    hd95: float
    assd: float


def surface_distances(a: LabelMap, b: LabelMap) -> dict[int, SurfaceDistances]:
    """Surface distances of each label that occurs in either map.

    A surface is the set of voxel centres of a label that have one of their six neighbours outside it, or
    beyond the edge of the image.

    Raises:
        InputError: the maps lie on different grids, or the grid's axes are not at right angles.
    """
    _check_same_grid(a, b)
    _check_right_angles(a.geometry)
    labels = _labels_of_either(a, b)
    return {label: mask_distances(a.data == label, b.data == label, a.geometry) for label in labels}


def mask_distances(in_a: torch.Tensor, in_b: torch.Tensor, geometry: ImageGeometry) -> SurfaceDistances:
    """Surface distances of two masks (D, H, W), bool, on a grid whose axes are at right angles."""
    if not bool(in_a.any()) or not bool(in_b.any()):
        return SurfaceDistances(math.inf, math.inf)
    box = bounding_box(in_a | in_b)
    surface_a, surface_b = _surface(in_a[box]), _surface(in_b[box])
    to_b = _distances(surface_a, surface_b, geometry)
    to_a = _distances(surface_b, surface_a, geometry)
    farthest = max(float(torch.quantile(to_b, 0.95)), float(torch.quantile(to_a, 0.95)))
    return SurfaceDistances(farthest, float(torch.cat((to_b, to_a)).mean()))


def bounding_box(mask: torch.Tensor) -> tuple[slice, slice, slice]:
    """The smallest box (D, H, W) that holds all set voxels of a mask; there must be one."""
    along = [mask.any(1).any(1), mask.any(0).any(1), mask.any(0).any(0)]
    z, y, x = (axis.nonzero().flatten() for axis in along)
    return tuple(slice(int(n[0]), int(n[-1]) + 1) for n in (z, y, x))  # type: ignore[return-value]


def hd95(a: LabelMap, b: LabelMap) -> dict[int, float]:
    """95th-percentile Hausdorff distance in mm of each label; see `surface_distances`."""
    return {label: distances.hd95 for label, distances in surface_distances(a, b).items()}


def assd(a: LabelMap, b: LabelMap) -> dict[int, float]:
    """Average symmetric surface distance in mm of each label; see `surface_distances`."""
    return {label: distances.assd for label, distances in surface_distances(a, b).items()}


def target_registration_error(
    fixed_points: torch.Tensor, moving_points: torch.Tensor, transform: SpatialTransform
) -> torch.Tensor:
    """Distance in mm (N,) from each transformed fixed landmark to its moving landmark; both (N, 3), mm, LPS.

    Raises:
        InputError: the points are not two lists of equal length of three coordinates.
    """
    if fixed_points.ndim != 2 or fixed_points.shape[-1] != 3 or fixed_points.shape != moving_points.shape:
        shapes = f"{tuple(fixed_points.shape)} and {tuple(moving_points.shape)}"
        raise InputError(f"the landmarks have shapes {shapes}; pairs of (x, y, z), twice (N, 3), are needed")
    error: torch.Tensor = transform.apply(fixed_points.double()) - moving_points.double()
    return error.square().sum(-1).sqrt()


def jacobian_determinant(
    field: DisplacementField,
    onto: ImageGeometry | None = None,
    between_slabs: Callable[[], None] = lambda: None,
) -> Volume:
    """det(I + grad u) of the transform x + u(x): 1 keeps the volume, 0 or less folds space.

    The field is sampled on `onto`, by default the grid `field.warp` resamples onto, and differentiated there
    by central differences (one-sided at the border) in mm, so the grid's direction and spacing are honoured.
    """
    geometry = onto or field.fixed_geometry or field.geometry
    determinant = torch.empty(geometry.shape)
    separable = Separable.between(field.geometry, geometry)
    # in steps along the grid's own axes the derivatives need no turning, and the determinant is the same
    steps = transform_vectors_torch(geometry.matrix(Frame.LPS, Frame.INDEX), field.vectors)
    steps = steps.movedim(-1, 0).contiguous()
    parts = list(plane_slabs(geometry.shape))

    def fill(number: int) -> None:
        rows = parts[number]
        if separable is None:
            determinant[rows] = determinants(_gradient(field, geometry, rows) + torch.eye(3))
        else:
            determinant[rows] = _determinant_of_identity_plus(*separable.planes_of_slopes(steps, rows))

    share_out(len(parts), lambda _: fill, determinant.device, between_slabs)
    return Volume(determinant, geometry)


def determinants(matrices: torch.Tensor) -> torch.Tensor:
    """Determinants (...,) of matrices (..., 3, 3)."""
    rows = matrices.unbind(-2)
    return torch.sum(rows[0] * torch.linalg.cross(rows[1], rows[2]), dim=-1)


@dataclass(frozen=True)
class FieldQuality:
    """What the Jacobian determinant says about a field.

    Args:
        folding_fraction: share of voxels, 0 to 1, whose determinant is 0 or less.
        jacobian_std: standard deviation of the determinant.
        log_jacobian_std: standard deviation of its logarithm, determinants first clamped to 1e-9 ... 1e9, as
            the Learn2Reg challenge does; few folded voxels therefore raise it much.
        smallest_determinant: the smallest determinant.
    """

    folding_fraction: float
    jacobian_std: float
    log_jacobian_std: float
    smallest_determinant: float

    @classmethod
    def of(cls, determinant: Volume, mask: LabelMap | None = None) -> FieldQuality:
        """The quality over all voxels, or over those where `mask`, on the same grid, is not 0.

        Raises:
            InputError: the mask lies on another grid or is empty.
        """
        values = _inside(determinant, mask).flatten()
        parts = torch.split(values, SLAB_POINTS)
        limits = _SMALLEST_DETERMINANT, _LARGEST_DETERMINANT
        return cls(
            folding_fraction=sum(int((part <= 0).sum()) for part in parts) / len(values),
            jacobian_std=_standard_deviation(parts),
            log_jacobian_std=_standard_deviation(part.clamp(*limits).log_() for part in parts),
            smallest_determinant=float(values.min()),
        )


def field_quality(field: DisplacementField, mask: LabelMap | None = None) -> FieldQuality:
    """`FieldQuality` inside the mask, on its grid; without one, on the grid `field.warp` resamples onto."""
    return FieldQuality.of(jacobian_determinant(field, mask.geometry if mask else None), mask)


def folding_fraction(field: DisplacementField, mask: LabelMap | None = None) -> float:
    """Share of voxels, 0 to 1, where the transform folds; see `field_quality`."""
    return field_quality(field, mask).folding_fraction


def jacobian_std(field: DisplacementField, mask: LabelMap | None = None) -> float:
    """Standard deviation of the Jacobian determinant; see `field_quality`."""
    return field_quality(field, mask).jacobian_std


def log_jacobian_std(field: DisplacementField, mask: LabelMap | None = None) -> float:
    """Standard deviation of the logarithm of the clamped Jacobian determinant; see `field_quality`."""
    return field_quality(field, mask).log_jacobian_std


def inverse_consistency_error(
    forward: DisplacementField, backward: SpatialTransform, onto: ImageGeometry | None = None
) -> Volume:
    """How far in mm each point lands from itself after `forward` and then `backward`.

    Measured at the voxels of `onto`, by default the grid `forward.warp` resamples onto.
    """
    geometry = onto or forward.fixed_geometry or forward.geometry
    error = torch.empty(geometry.shape)
    for rows, points in slabs(geometry):
        error[rows] = (backward.apply(forward.apply(points)) - points).square().sum(-1).sqrt().float()
    return Volume(error, geometry)


def inverse_residual(inverse: DisplacementField, field: DisplacementField) -> Volume:
    """How far in mm points land from themselves after `inverse` and `field`: between the inverse's own, the worst."""
    grid = inverse.geometry
    between = grid.coarsened((2, 2, 2)).cropped((0, 0, 0), [max(1, n // 2) for n in grid.size])
    return inverse_consistency_error(inverse, field, between)


def _gradient(field: DisplacementField, grid: ImageGeometry, rows: slice) -> torch.Tensor:
    """Gradient (d, H, W, 3, 3) of a field sampled at the points of a grid."""
    width, height, depth = grid.size
    low, high = max(0, rows.start - 1), min(depth, rows.stop + 1)  # neighbours for the central differences
    slab = grid.cropped((0, 0, low), (width, height, high - low))
    return field.on(slab).gradient[rows.start - low : rows.stop - low]


def _determinant_of_identity_plus(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """det(I + G) where the columns of G are x, y, z, each (3, d, H, W); they are changed."""
    for axis, column in enumerate((x, y, z)):
        column[axis].add_(1)
    minors = [(y[a] * z[b]).addcmul_(y[b], z[a], value=-1) for a, b in ((1, 2), (2, 0), (0, 1))]
    return minors[0].mul_(x[0]).addcmul_(minors[1], x[1]).addcmul_(minors[2], x[2])


def _standard_deviation(parts: Iterable[torch.Tensor]) -> float:
    """Of the values of all parts; each part's moments are those of single precision, their sums double."""
    counts, means, variances = [], [], []
    for part in parts:
        mean = part.mean()
        counts.append(float(len(part)))
        means.append(float(mean))
        variances.append(float((part - mean).square_().mean()))
    n, m, v = (torch.tensor(column, dtype=torch.float64) for column in (counts, means, variances))
    mean = (n * m).sum() / n.sum()
    return float(((n * (v + (m - mean).square())).sum() / n.sum()).sqrt())


def _inside(volume: Volume, mask: LabelMap | None) -> torch.Tensor:
    if mask is None:
        return volume.data
    if not mask.geometry.is_close(volume.geometry):
        raise InputError("the mask lies on another grid than the values; resample one onto the other first")
    values = volume.data[mask.data != 0]
    if values.numel() == 0:
        raise InputError("the mask is 0 everywhere; nothing is left to measure: give a mask with voxels set")
    return values


def _labels_of_either(a: LabelMap, b: LabelMap) -> list[int]:
    return sorted({*a.labels, *b.labels})


def _check_same_grid(a: LabelMap, b: LabelMap) -> None:
    if not a.geometry.is_close(b.geometry):
        raise InputError(
            f"the label maps lie on different grids ({a.geometry.size} and {b.geometry.size} voxels); "
            "resample one onto the other first (pddnet.warp.resample, or `pddnet warp --labels --reference`)"
        )


def _check_right_angles(geometry: ImageGeometry) -> None:
    if not geometry.has_right_angles:
        raise InputError(
            "the axes of the label maps are not at right angles; resample both onto a grid whose are"
        )


def _surface(mask: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(mask, (1, 1, 1, 1, 1, 1))
    inner = mask.clone()
    for axis in range(3):
        for shift in (-1, 1):
            inner &= padded.roll(shift, axis)[1:-1, 1:-1, 1:-1]
    return mask & ~inner


def _distances(sources: torch.Tensor, targets: torch.Tensor, geometry: ImageGeometry) -> torch.Tensor:
    """Distance in mm (N,) of each set voxel of `sources` to the nearest of `targets`, both (D, H, W).

    Looked for near by at first, and farther away for the voxels that have found nothing: most surfaces are close. The
    last few are compared with every target.
    """
    points, ends = sources.nonzero(), targets.nonzero()
    distances, searching = torch.empty(len(points)), torch.arange(len(points))
    farthest = max(n * s for n, s in zip(sources.shape, reversed(geometry.spacing), strict=True))
    reach = _FIRST_REACH_MM
    while len(searching):
        if len(searching) * len(ends) <= _PAIRS_PER_STEP * targets.numel() * reach / min(geometry.spacing):
            distances[searching] = _nearest(points[searching], ends, geometry)
            break
        squared = torch.where(targets, 0.0, torch.inf)
        for axis, spacing in ((2, geometry.spacing[0]), (1, geometry.spacing[1])):
            squared = _spread(squared, axis, spacing, int(reach / spacing) + 1)
        steps = int(reach / geometry.spacing[2]) + 1
        distances[searching] = _nearest_along_z(squared, points[searching], geometry.spacing[2], steps).sqrt()
        if reach >= farthest:
            break
        searching = searching[distances[searching] > reach]  # up to the reach a distance is the shortest
        reach *= 2
    return distances.double()


def _spread(squared: torch.Tensor, axis: int, spacing: float, steps: int) -> torch.Tensor:
    """The smallest, within `steps` along an axis, of each voxel's squared distance plus the squared way to it."""
    best, length = squared.clone(), squared.shape[axis]
    for shift in range(1, min(steps + 1, length)):
        way = (shift * spacing) ** 2
        if way >= best.max():
            break
        rest = length - shift
        for here, there in ((0, shift), (shift, 0)):
            part = best.narrow(axis, here, rest)
            torch.minimum(part, squared.narrow(axis, there, rest) + way, out=part)
    return best


def _nearest(points: torch.Tensor, targets: torch.Tensor, geometry: ImageGeometry) -> torch.Tensor:
    """Distance in mm (N,) of points (N, 3) to the nearest of targets (M, 3), all array indices (z, y, x)."""
    spacing = torch.tensor(geometry.spacing[::-1])
    rows = max(1, _PAIRS_AT_ONCE // len(targets))
    nearest = [
        sum(((part[:, None, a] - targets[None, :, a]) * spacing[a]).square() for a in range(3)).amin(1)  # type: ignore[union-attr]
        for part in (points[start : start + rows] for start in range(0, len(points), rows))
    ]
    return torch.cat(nearest).sqrt()


def _nearest_along_z(squared: torch.Tensor, points: torch.Tensor, spacing: float, steps: int) -> torch.Tensor:
    """The smallest (N,) of `squared` (D, H, W) plus the squared way along z, within `steps` of points (N, 3)."""
    z, y, x = points.unbind(-1)
    best, last = torch.full((len(points),), torch.inf), len(squared) - 1
    for shift in range(-min(steps, last), min(steps, last) + 1):
        there = z + shift
        values = squared[there.clamp(0, last), y, x] + (shift * spacing) ** 2
        torch.minimum(best, torch.where((there >= 0) & (there <= last), values, torch.inf), out=best)
    return best
