"""Control points, displacement labels and the dissimilarity of every pair of them.

Coordinates are normalised, (-1, 1) from the centre of the first to the centre of the last voxel (Frame.CUBE),
and vectors are (x, y, z). Shapes are written (D, H, W). Six-dimensional volumes are (Kd, Kh, Kw, Ld, Lh, Lw):
control points first, displacement labels last. Source: Heinrich, MICCAI 2019, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from pddnet.errors import InputError

Shape = tuple[int, int, int]
Hook = Callable[[], None]
Reduction = Literal["sum", "mean"]

_ELEMENTS_AT_ONCE_CPU = 2**20  # a piece of work stays in cache
_ELEMENTS_AT_ONCE_GPU = 2**25


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
    _check(fixed_features, moving_features, points, labels, reduction)
    at_points = sample_at(fixed_features, points)  # (C, Kd, Kh, Kw)
    axes, offsets = lattice_axes(points), lattice_axes(labels)
    if axes is not None and offsets is not None:
        rows = _rows_on_lattice(moving_features, at_points, axes, offsets, between_chunks)
    else:
        rows = _rows_anywhere(moving_features, at_points, points, labels, between_chunks)
    scale = 1.0 if reduction == "sum" else 1.0 / fixed_features.shape[1]
    like = torch.empty(0, dtype=storage_dtype or fixed_features.dtype, device=fixed_features.device)
    return _collect(rows, (*points.shape[:3], *labels.shape[:3]), scale, like)


def sample_at(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Features (1, C, D, H, W) at normalised points (P, Q, R, 3), border value held outside: (C, P, Q, R)."""
    return F.grid_sample(features, points[None], padding_mode="border", align_corners=True)[0]


def lattice_axes(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """The (z, y, x) axes of positions (P, Q, R, 3) that form a product grid, None where they do not."""
    z, y, x = positions[:, 0, 0, 2], positions[0, :, 0, 1], positions[0, 0, :, 0]
    depth, height, width = torch.meshgrid(z, y, x, indexing="ij")
    return (z, y, x) if torch.equal(torch.stack((width, height, depth), -1), positions) else None


def lattice_weights(
    axes: Sequence[torch.Tensor], offsets: Sequence[torch.Tensor], shape: Sequence[int]
) -> list[torch.Tensor]:
    """Linear interpolation of a volume (D, H, W) at every position plus offset, one matrix per axis.

    Args:
        axes, offsets: positions and offsets along (z, y, x), normalised.

    Returns:
        (Kd, Ld, D), (Kh, Lh, H), (Kw, Lw, W).
    """
    return [
        interpolation_matrix((axis[:, None] + offset).flatten(), size).view(len(axis), len(offset), size)
        for axis, offset, size in zip(axes, offsets, shape, strict=True)
    ]


def interpolation_matrix(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Linear interpolation along one axis as a matrix (len(positions), size).

    Row p gives the weights of the `size` samples for the normalised position p, the border value
    held outside.
    """
    index = ((positions + 1) * 0.5 * (size - 1)).clamp(0, size - 1)
    low = index.floor().clamp(max=max(size - 2, 0))
    fraction = (index - low)[:, None]
    column = torch.arange(size, device=positions.device)
    is_low = column == low.long()[:, None]
    is_high = column == low.long()[:, None] + 1
    return is_low * (1 - fraction) + is_high * fraction


def _rows_on_lattice(
    moving: torch.Tensor,
    at_points: torch.Tensor,
    axes: Sequence[torch.Tensor],
    offsets: Sequence[torch.Tensor],
    between_chunks: Hook | None,
) -> Iterator[torch.Tensor]:
    """Rows of the volume (n, Ld, Lh, Lw) in the order of the points; a sum over channels.

    k + d runs over a product of three axes, so the interpolation is three matrix products and no gather.
    """
    weights = lattice_weights(axes, offsets, moving.shape[2:])
    by_slice = moving[0].transpose(0, 1).flatten(1)  # (D, C*H*W)
    for k in range(len(axes[0])):
        slices = (weights[0][k] @ by_slice).view(-1, moving.shape[1], *moving.shape[3:])  # (Ld, C, H, W)
        for row in range(len(axes[1])):
            if between_chunks is not None:
                between_chunks()
            yield _squared_differences(slices, at_points[:, k, row], weights[1][row], weights[2])


def _squared_differences(
    slices: torch.Tensor, at_points: torch.Tensor, row_weights: torch.Tensor, column_weights: torch.Tensor
) -> torch.Tensor:
    """One row of points: moving slices (Ld, C, H, W) against fixed features (C, Kw), to (Kw, Ld, Lh, Lw)."""
    columns, across = column_weights.shape[:2]
    step = max(1, _elements_at_once(slices) // (len(at_points) * len(row_weights) * columns * across))
    sums = []
    for start in range(0, len(slices), step):
        lines = row_weights @ slices[start : start + step]  # (some of Ld, C, Lh, W)
        samples = (lines @ column_weights.flatten(0, 1).T).view(*lines.shape[:3], columns, across)
        sums.append(samples.sub_(at_points[:, None, :, None]).square().sum(1))
    return torch.cat(sums).permute(2, 0, 1, 3)


def _rows_anywhere(
    moving: torch.Tensor,
    at_points: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    between_chunks: Hook | None,
) -> Iterator[torch.Tensor]:
    """The same rows for points or labels that lie anywhere, by gathering every sample."""
    fixed = at_points.flatten(1)[:, :, None]  # (C, K, 1)
    flat_points, flat_labels = points.reshape(-1, 1, 3), labels.reshape(1, -1, 3)
    step = max(1, _elements_at_once(moving) // (fixed.shape[0] * flat_labels.shape[1]))
    for start in range(0, len(flat_points), step):
        if between_chunks is not None:
            between_chunks()
        here = slice(start, start + step)
        samples = sample_at(moving, (flat_points[here] + flat_labels)[None])[:, 0]  # (C, n, L)
        yield (samples - fixed[:, here]).square().sum(0).view(-1, *labels.shape[:3])


def _elements_at_once(tensor: torch.Tensor) -> int:
    return _ELEMENTS_AT_ONCE_CPU if tensor.device.type == "cpu" else _ELEMENTS_AT_ONCE_GPU


def _collect(
    rows: Iterator[torch.Tensor], shape: Sequence[int], scale: float, like: torch.Tensor
) -> torch.Tensor:
    """Rows put together in one volume of this shape, without a second copy unless they carry gradients."""
    volume = like.new_empty((math.prod(shape[:3]), *shape[3:]))
    start = 0
    for row in rows:
        if row.requires_grad:
            return torch.cat([(r * scale).to(like.dtype) for r in (row, *rows)]).reshape(tuple(shape))
        volume[start : start + len(row)] = row if scale == 1.0 else row * scale
        start += len(row)
    return volume.reshape(tuple(shape))


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


def _check(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    reduction: Reduction,
) -> None:
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
