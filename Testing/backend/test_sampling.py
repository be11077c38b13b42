"""Sampling, dilation and block means: the same as PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pddnet.sampling import block_mean, dilated, grid_sample


@pytest.mark.parametrize("planes", [1, 2, 7, 12])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_grid_sample_is_pytorchs(planes: int, padding_mode: str, align_corners: bool) -> None:
    generator = torch.Generator().manual_seed(planes)
    values = torch.rand((3, 5, 6, 7), generator=generator)
    cube = torch.rand((planes, 4, 9, 3), generator=generator) * 3 - 1.5
    ours = grid_sample(values, cube, padding_mode=padding_mode, align_corners=align_corners)  # type: ignore[arg-type]
    theirs = F.grid_sample(values[None], cube[None], padding_mode=padding_mode, align_corners=align_corners)[
        0
    ]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (2, 1, 3, 1)])
def test_dilated_is_max_pooling(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(dilated(mask), F.max_pool3d(mask[None], 3, 1, 1)[0])


@pytest.mark.parametrize("block", [1, 2, 4, (1, 2, 3)])
def test_block_mean_is_average_pooling(block: int | tuple[int, int, int]) -> None:
    values = torch.rand((2, 9, 8, 7), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block_mean(values, block), F.avg_pool3d(values, block))
