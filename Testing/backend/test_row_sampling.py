"""Volumes sampled as stacked planes: the same as PyTorch's sampler of volumes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pddnet.row_sampling import RowSampler

SHAPES = [(1, 5, 6, 7), (3, 9, 4, 11), (2, 1, 5, 6), (2, 4, 1, 3), (1, 3, 4, 1), (1, 1, 1, 1)]


def volume_and_moves(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, and displacements (3, D, H, W) in voxels, many of which lead outside."""
    generator = torch.Generator().manual_seed(sum(shape))
    values = torch.randn(shape, generator=generator, dtype=dtype)
    return values, 3 * torch.randn((3, *shape[1:]), generator=generator, dtype=dtype)


def indices(displacement: torch.Tensor) -> torch.Tensor:
    """Where each voxel is displaced to, (3, D, H, W) as (x, y, z)."""
    lines = [torch.arange(n, dtype=displacement.dtype) for n in displacement.shape[1:]]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1]) + displacement


def pytorchs(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(C, D, H, W) at continuous indices (3, ...), the border held, in double precision."""
    size = torch.tensor(values.shape[:0:-1]).double()[:, None, None, None]
    cube = index.double() * (2 / (size - 1).clamp(min=1)) - 1
    found = F.grid_sample(
        values.double()[None], cube.movedim(0, -1)[None], padding_mode="border", align_corners=True
    )
    return found[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_displaced_values_are_those_of_the_sampler_of_volumes(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    values, moves = volume_and_moves(shape, dtype)
    found = RowSampler(values).displaced(moves, 0)
    expected = pytorchs(values, indices(moves))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    if min(shape[1:]) > 1:
        wrong = pytorchs(values, indices(moves.flip(0)))
        assert (found - wrong).abs().max() > 0.1


def test_planes_can_be_sampled_a_few_at_a_time_and_displacements_scaled() -> None:
    values, moves = volume_and_moves((3, 9, 4, 11), torch.float64)
    sampler = RowSampler(values)
    whole = sampler.displaced(moves * 0.5, 0)
    parts = [sampler.displaced(moves[:, first : first + 4], first, 0.5) for first in (0, 4, 8)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_beyond_the_first_and_last_row_nothing_of_the_next_plane_is_seen() -> None:
    values = torch.zeros((1, 3, 200, 4))
    values[:, 1] = 1e6  # rounding would let some of it into the planes beside it
    moves = torch.zeros((3, 3, 200, 4))
    moves[1] = torch.linspace(-3, 3, 200)[:, None]
    assert torch.equal(RowSampler(values).displaced(moves, 0), values)


def test_positions_are_as_right_as_promised_among_thousands_of_rows() -> None:
    depth, height = 40, 100
    ramp = torch.arange(height, dtype=torch.float32)[:, None].expand(1, depth, height, 3).contiguous()
    generator = torch.Generator().manual_seed(1)
    moves = torch.rand((3, depth, height, 3), generator=generator) * 8 - 4
    error = RowSampler(ramp).displaced(moves, 0) - pytorchs(ramp, indices(moves))
    assert error.abs().max() < depth * (height + 2) * 2**-22
    assert RowSampler(ramp).displaced(moves, 0).sub(ramp).abs().max() > 3
