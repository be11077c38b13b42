"""Min-convolution over displacement labels and mean field over control points: the two filters of the regularisation.

Volumes are (Kd, Kh, Kw, Ld, Lh, Lw): control points first, displacement labels last. They are worked on a piece at a
time, because they fill much of the memory. Source: Heinrich, MICCAI 2019, section 2.3; the padding is that of the
published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from pddnet.errors import InputError

Hook = Callable[[], None]

_ELEMENTS_AT_ONCE_CPU = 2**19  # a block of points and its copies stay in the second-level cache
_ELEMENTS_AT_ONCE_GPU = 2**25
_FILTER = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)  # two averages of three, one after the other


def min_convolution(cost: torch.Tensor, *, between_chunks: Hook | None = None) -> torch.Tensor:
    """Lower envelope over the labels, approximately: minimum of 3^3, then twice the average of 3^3.

    The border is repeated before the minimum, as in the published code.

    Args:
        cost: (Kd, Kh, Kw, Ld, Lh, Lw).

    Returns:
        The same shape, float32 at least. Differentiable; where two labels tie for a minimum they share its gradient.
    """
    check_volume("cost", cost)
    filters = label_filters(cost)
    return by_points(lambda block: min_convolve_block(block, filters), (cost,), None, between_chunks)


def mean_field(cost: torch.Tensor, *, between_chunks: Hook | None = None) -> torch.Tensor:
    """Message passing between control points: twice the average of 3^3 neighbours, border repeated.

    Args:
        cost: (Kd, Kh, Kw, Ld, Lh, Lw); each label is filtered over the first three axes on its own.

    Returns:
        The same shape, float32 at least. Differentiable.
    """
    check_volume("cost", cost)
    return mean_field_in_place(_widened(cost).clone(), between_chunks)


def label_filters(volume: torch.Tensor) -> list[torch.Tensor]:
    """For each label axis, the filter of the minima from one label before to one after it: (size, size + 2).

    Two labels beyond the border the minimum is the same as one beyond it, so its tap is added there.
    """
    like = _widened(volume[:0])
    return [band_matrix(size + 2, _FILTER, like=like)[1:-1] for size in volume.shape[3:]]


def min_convolve_block(cost: torch.Tensor, filters: Sequence[torch.Tensor]) -> torch.Tensor:
    """Min-convolution of a block of points (n, Ld, Lh, Lw)."""
    values = cost.permute(1, 2, 3, 0).contiguous()  # points last: slices are runs of n
    for axis in range(3):
        values = _extended_minimum(values, axis)  # (Ld + 2, Lh + 2, Lw + 2, n) in the end
    for axis, matrix in enumerate(filters):
        filtered = matrix @ values.flatten(axis + 1)  # (..., size, rest)
        values = filtered.view(*filtered.shape[:-1], *values.shape[axis + 1 :])
    return values.permute(3, 0, 1, 2)


def mean_field_in_place(cost: torch.Tensor, between_chunks: Hook | None) -> torch.Tensor:
    """`mean_field`, overwriting its argument unless a gradient is asked for."""
    depth, rows, columns = (band_matrix(n, _FILTER, like=cost) for n in cost.shape[:3])

    def within_plane(plane: torch.Tensor) -> torch.Tensor:  # (1, Kh, Kw, L)
        along_columns = columns @ plane[0]  # (Kh, Kw, L)
        return (rows @ along_columns.flatten(1)).view_as(plane)

    def across_planes(columns_of_all: torch.Tensor) -> torch.Tensor:  # (Kd, n)
        return depth @ columns_of_all

    planes = cost.flatten(3)  # (Kd, Kh, Kw, L)
    planes = _in_pieces(within_plane, (planes,), planes, 0, 1, between_chunks).flatten(1)  # (Kd, Kh*Kw*L)
    step = max(1, _elements_at_once(cost) // len(depth))
    return _in_pieces(across_planes, (planes,), planes, 1, step, between_chunks).view_as(cost)


def by_points(
    function: Callable[..., torch.Tensor],
    volumes: Sequence[torch.Tensor],
    reuse: torch.Tensor | None,
    between_chunks: Hook | None,
) -> torch.Tensor:
    """`function` of a few control points (n, Ld, Lh, Lw) of each volume at a time; float32 at least."""
    blocks = [volume.flatten(0, 2) for volume in volumes]
    step = max(1, _elements_at_once(blocks[0]) // math.prod(blocks[0].shape[1:]))
    out = None if reuse is None else reuse.flatten(0, 2)
    return _in_pieces(function, blocks, out, 0, step, between_chunks).view(volumes[0].shape)


def check_volume(name: str, volume: torch.Tensor) -> None:
    """Raise InputError unless the volume has six axes and no empty one."""
    if volume.ndim != 6 or 0 in volume.shape:
        raise InputError(
            f"{name} has shape {tuple(volume.shape)}; (Kd, Kh, Kw, Ld, Lh, Lw), none of them 0, is needed"
        )


def band_matrix(size: int, taps: Sequence[float], *, like: torch.Tensor) -> torch.Tensor:
    """A 1-D filter with the border value repeated, as a matrix (size, size): filtered = matrix @ values."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    rows = torch.arange(size)
    for shift, tap in enumerate(taps, start=-(len(taps) // 2)):
        columns = (rows + shift).clamp(0, size - 1)
        matrix.index_put_((rows, columns), torch.tensor(tap, dtype=torch.float64), accumulate=True)
    return matrix.to(like.device, like.dtype)


def _extended_minimum(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Minimum of three neighbours along an axis; one more at either end, where only the border value is seen.

    That is what a border repeated before the minimum gives: [c0, min(c0, c1), min(c0, c1, c2), ..., cn].
    """
    size = values.shape[axis]
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, size - 1, 1)
    if size == 1:
        return torch.cat((first, first, first), axis)
    pairs = torch.minimum(values.narrow(axis, 0, size - 1), values.narrow(axis, 1, size - 1))
    left, right = pairs.narrow(axis, 0, size - 2), pairs.narrow(axis, 1, size - 2)
    ends = (first, pairs.narrow(axis, 0, 1), pairs.narrow(axis, size - 2, 1), last)
    if values.requires_grad:
        return torch.cat((*ends[:2], torch.minimum(left, right), *ends[2:]), axis)
    extended = values.new_empty([n + 2 * (a == axis) for a, n in enumerate(values.shape)])
    torch.minimum(left, right, out=extended.narrow(axis, 2, size - 2))
    for position, end in zip((0, 1, size, size + 1), ends, strict=True):
        extended.narrow(axis, position, 1).copy_(end)
    return extended


def _in_pieces(
    function: Callable[..., torch.Tensor],
    volumes: Sequence[torch.Tensor],
    reuse: torch.Tensor | None,
    axis: int,
    step: int,
    between_chunks: Hook | None,
) -> torch.Tensor:
    """`function` of slices along an axis of the volumes, the results put together.

    Results without gradients are written into `reuse`, which may be one of the volumes, or into a new volume.
    """

    def results() -> Iterator[torch.Tensor]:
        for start in range(0, volumes[0].shape[axis], step):
            if between_chunks is not None:
                between_chunks()
            length = min(step, volumes[0].shape[axis] - start)
            yield function(*(_widened(volume.narrow(axis, start, length)) for volume in volumes))

    pieces, start = results(), 0
    for piece in pieces:
        if piece.requires_grad:
            return torch.cat([piece, *pieces], axis)
        if reuse is None:
            reuse = piece.new_empty(volumes[0].shape)
        reuse.narrow(axis, start, piece.shape[axis]).copy_(piece)
        start += piece.shape[axis]
    return volumes[0] if reuse is None else reuse


def _elements_at_once(tensor: torch.Tensor) -> int:
    return _ELEMENTS_AT_ONCE_CPU if tensor.device.type == "cpu" else _ELEMENTS_AT_ONCE_GPU


def _widened(block: torch.Tensor) -> torch.Tensor:
    return block.float() if block.dtype in (torch.float16, torch.bfloat16) else block
