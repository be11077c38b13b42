"""Control points, displacement labels and the dissimilarity of every pair of them.

Coordinates are normalised, (-1, 1) from the centre of the first to the centre of the last voxel (Frame.CUBE),
and vectors are (x, y, z). Shapes are written (D, H, W). Six-dimensional volumes are (Kd, Kh, Kw, Ld, Lh, Lw):
control points first, displacement labels last. Source: Heinrich, MICCAI 2019, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch

from pddnet.all_cores import Hook
from pddnet.common_lattice import common_lattice
from pddnet.difference_gradients import squared_differences
from pddnet.errors import InputError
from pddnet.feature_differences import InterpolatedSearch, SlicedSearch
from pddnet.interpolation import lattice_axes, lattice_weights, resampled, sample_at

Shape = tuple[int, int, int]
Reduction = Literal["sum", "mean"]

_LATTICE_SHARE = (
    0.25  # of the volume's size that features on the lattice may take: beyond it the lattice is too fine
)


def control_points(
    grid_shape: int | Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """A regular grid over the whole cube, first and last points on its faces.

    Args:
        grid_shape: number of points (Kd, Kh, Kw), or one number for a cubic grid.

    Returns:
        (Kd, Kh, Kw, 3), normalised (x, y, z).

    Example:
        >>> control_points((2, 2, 3))[0, 0].tolist()
        [[-1.0, -1.0, -1.0], [0.0, -1.0, -1.0], [1.0, -1.0, -1.0]]
    """
    return _lattice(_triple_of_counts("grid_shape", grid_shape), (1.0, 1.0, 1.0), dtype, device)


def displaced_positions(displacement: torch.Tensor) -> torch.Tensor:
    """Where the points of a grid go, (B, D, H, W, 3), normalised, by a displacement (B, 3, D, H, W) in (x, y, z)."""
    points = control_points(displacement.shape[2:], dtype=displacement.dtype, device=displacement.device)
    return points + displacement.permute(0, 2, 3, 4, 1)


def displacement_labels(
    label_shape: int | Sequence[int],
    reach: float | Sequence[float],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """All displacements a control point may take: an even grid over [-reach, reach] along each axis.

    Args:
        label_shape: number of labels (Ld, Lh, Lw), or one number (the paper's 15).
        reach: largest displacement, normalised, (x, y, z) or one number (the paper's q = 0.4).

    Returns:
        (Ld, Lh, Lw, 3), normalised (x, y, z); `.reshape(-1, 3)` follows the flattened label axes of a volume.

    Example:
        >>> displacement_labels(3, 0.5)[1, 1].tolist()
        [[-0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]
    """
    reaches = tuple(float(r) for r in reach) if isinstance(reach, Sequence) else (float(reach),) * 3
    if len(reaches) != 3 or not all(0 < r < float("inf") for r in reaches):
        raise InputError(f"reach is {reach}; one positive number, or three for (x, y, z), is needed")
    return _lattice(_triple_of_counts("label_shape", label_shape), reaches, dtype, device)


def dissimilarity_volume(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    *,
    reduction: Reduction = "sum",
    storage_dtype: torch.dtype | None = None,
    between_chunks: Hook | None = None,
) -> torch.Tensor:
    """Squared feature differences of every control point k and displacement label d.

    D(k, d) = sum over channels of (fixed(k) - moving(k + d))^2, features interpolated trilinearly, the border
    value held outside. Positive, and a sum, as in the published code; the paper writes the negated mean
    (`reduction="mean"` gives the positive mean). Differentiable in both feature volumes.

    Args:
        fixed_features, moving_features: (1, C, D, H, W); the two may differ in D, H, W.
        points: (Kd, Kh, Kw, 3) from `control_points`, or any other positions of the same shape (slower).
        labels: (Ld, Lh, Lw, 3) from `displacement_labels`.
        storage_dtype: type of the result, the features' by default; half precision halves its memory.
        between_chunks: called between pieces of work; what it raises ends the computation.

    Returns:
        (Kd, Kh, Kw, Ld, Lh, Lw).

    Raises:
        InputError: features that are not two volumes of one batch, type and number of channels.
    """
    if torch.is_grad_enabled() and (fixed_features.requires_grad or moving_features.requires_grad):
        check_search(fixed_features, moving_features, points, labels, reduction)
        volume = _with_gradient(fixed_features, moving_features, points, labels, reduction, between_chunks)
        return volume.to(storage_dtype or volume.dtype)
    shape = (*points.shape[:3], *labels.shape[:3])
    out = fixed_features.new_empty(shape, dtype=storage_dtype or fixed_features.dtype)
    search = DissimilaritySearch(fixed_features, moving_features, points, labels, reduction)
    for plane in range(len(out)):
        search.fill_plane(plane, out[plane], between_chunks)
    return out


class DissimilaritySearch:
    """`dissimilarity_volume`, without gradients, a plane of points at a time: see there for the arguments."""

    @torch.no_grad()
    def __init__(
        self,
        fixed_features: torch.Tensor,
        moving_features: torch.Tensor,
        points: torch.Tensor,
        labels: torch.Tensor,
        reduction: Reduction = "sum",
    ) -> None:
        check_search(fixed_features, moving_features, points, labels, reduction)
        self._search: SlicedSearch | InterpolatedSearch | _SearchAnywhere
        axes, offsets = _host_axes(points), _host_axes(labels)
        if axes is None or offsets is None:
            self._search = _SearchAnywhere(fixed_features, moving_features, points, labels, reduction)
        else:
            at_points = resampled(fixed_features[0], axes)
            self._search = _search_grids(at_points, moving_features[0], axes, offsets, reduction)

    @torch.no_grad()
    def fill_plane(self, plane: int, out: torch.Tensor, between_chunks: Hook | None = None) -> None:
        """Write the dissimilarities of one plane to (Kh, Kw, Ld, Lh, Lw), in any order in memory and any type."""
        self._search.fill_plane(plane, out, between_chunks)


def _search_grids(
    at_points: torch.Tensor,
    moving: torch.Tensor,
    axes: Sequence[torch.Tensor],
    offsets: Sequence[torch.Tensor],
    reduction: Reduction,
) -> SlicedSearch | InterpolatedSearch:
    """For product grids, whose axes are on the CPU: features at the points (C, Kd, Kh, Kw), moving (C, D, H, W)."""
    lattice = common_lattice(axes, offsets)
    counts = [len(axis) * len(offset) for axis, offset in zip(axes, offsets, strict=True)]
    if lattice is not None and lattice.cells * len(moving) <= _LATTICE_SHARE * math.prod(counts):
        on_lattice = resampled(moving, lattice.axes)
        return SlicedSearch(at_points, on_lattice, lattice.strides, _scale(moving, reduction))
    weights = lattice_weights(axes, offsets, moving.shape[1:])
    return InterpolatedSearch(at_points, moving, weights, _scale(moving, reduction))


class _SearchAnywhere:
    """Points or labels that lie anywhere, by gathering every sample; differentiable."""

    def __init__(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        points: torch.Tensor,
        labels: torch.Tensor,
        reduction: Reduction,
    ) -> None:
        self._at_points = sample_at(fixed, points)  # (C, Kd, Kh, Kw)
        self._moving, self._points, self._labels = moving, points, labels
        self._scale = _scale(moving[0], reduction)

    def row(self, plane: int, row: int) -> torch.Tensor:
        """(Kw, Ld, Lh, Lw)."""
        positions = self._points[plane, row, :, None] + self._labels.reshape(-1, 3)  # (Kw, L, 3)
        samples = sample_at(self._moving, positions[None])[:, 0]  # (C, Kw, L)
        squares = (samples - self._at_points[:, plane, row, :, None]).square()
        return (squares.sum(0) * self._scale).view(-1, *self._labels.shape[:3])

    def fill_plane(self, plane: int, out: torch.Tensor, between_chunks: Hook | None) -> None:
        """Write (Kh, Kw, Ld, Lh, Lw)."""
        for row, target in enumerate(out):
            if between_chunks is not None:
                between_chunks()
            target.copy_(self.row(plane, row))


def _with_gradient(
    fixed_features: torch.Tensor,
    moving_features: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    reduction: Reduction,
    between_chunks: Hook | None,
) -> torch.Tensor:
    axes, offsets = _host_axes(points), _host_axes(labels)
    if axes is None or offsets is None:
        anywhere = _SearchAnywhere(fixed_features, moving_features, points, labels, reduction)
        rows = [anywhere.row(k, row) for k, row in product(*map(range, points.shape[:2]))]
        return torch.stack(rows).view(*points.shape[:3], *labels.shape[:3])

    def fill(out: torch.Tensor, at_points: torch.Tensor, moving: torch.Tensor) -> None:
        search = _search_grids(at_points, moving, axes, offsets, reduction)
        for plane in range(len(out)):
            search.fill_plane(plane, out[plane], between_chunks)

    moving = moving_features[0]
    weights = lattice_weights(axes, offsets, moving.shape[1:])
    at_points = resampled(fixed_features[0], axes)
    return squared_differences(at_points, moving, weights, _scale(moving, reduction), fill)


def _scale(features: torch.Tensor, reduction: Reduction) -> float:
    return 1.0 if reduction == "sum" else 1.0 / len(features)


def _host_axes(positions: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
    """Their (z, y, x) axes on the CPU in double precision; a GPU is waited for only where they are on it."""
    axes = lattice_axes(positions.cpu())
    return None if axes is None else tuple(axis.double() for axis in axes)


def _lattice(
    shape: Shape, reach: Sequence[float], dtype: torch.dtype, device: torch.device | str
) -> torch.Tensor:
    x, y, z = (
        torch.linspace(-r, r, n, dtype=dtype, device=device)
        if n > 1
        else torch.zeros(1, dtype=dtype, device=device)
        for r, n in zip(reach, reversed(shape), strict=True)
    )
    depth, height, width = torch.meshgrid(z, y, x, indexing="ij")
    return torch.stack((width, height, depth), -1)  # (D, H, W, 3) holding (x, y, z)


def _triple_of_counts(name: str, value: int | Sequence[int]) -> Shape:
    counts = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(counts) != 3 or any(n != int(n) or n < 1 for n in counts):
        raise InputError(f"{name} is {value}; one positive whole number, or three for (D, H, W), is needed")
    return int(counts[0]), int(counts[1]), int(counts[2])


def check_search(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    reduction: Reduction,
) -> None:
    """Raise InputError for anything a search cannot use."""
    for name, features in (("fixed_features", fixed), ("moving_features", moving)):
        if features.ndim != 5 or features.shape[0] != 1:
            raise InputError(
                f"{name} have shape {tuple(features.shape)}; (1, C, D, H, W) is needed: one pair at a time"
            )
    if fixed.shape[1] != moving.shape[1]:
        raise InputError(
            f"fixed_features have {fixed.shape[1]} channels and moving_features {moving.shape[1]}; "
            "the same features of both images are needed"
        )
    for name, positions in (("points", points), ("labels", labels)):
        if positions.ndim != 4 or positions.shape[3] != 3:
            raise InputError(f"{name} have shape {tuple(positions.shape)}; (D, H, W, 3) is needed")
    if reduction not in ("sum", "mean"):
        raise InputError(f"reduction is {reduction!r}; 'sum' or 'mean' is needed")
