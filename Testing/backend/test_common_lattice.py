"""Whether control points and displacement labels share a lattice, and which."""

from __future__ import annotations

import pytest
import torch

from pddnet.common_lattice import common_lattice


def line(count: int, reach: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.linspace(-reach, reach, count, dtype=dtype) if count > 1 else torch.zeros(1, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("points", "labels", "stride"),
    [
        ((5, 6, 7), (3, 5, 4), (1, 2, 3)),
        ((1, 4, 2), (3, 1, 2), (3, 1, 1)),
        ((32, 32, 32), (15, 15, 15), (2, 1, 4)),
    ],
)
def test_every_point_plus_label_is_the_cell_the_strides_say(
    points: tuple[int, ...], labels: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype
) -> None:
    axes = [line(n, 1.0, dtype) for n in points]
    offsets = [
        line(count, (count - 1) / (max(n, 2) - 1) / s, dtype)
        for n, count, s in zip(points, labels, stride, strict=True)
    ]
    lattice = common_lattice([a.double() for a in axes], [o.double() for o in offsets])
    assert lattice is not None
    assert lattice.cells == len(lattice.axes[0]) * len(lattice.axes[1]) * len(lattice.axes[2])
    for axis, offset, cells, step in zip(axes, offsets, lattice.axes, lattice.strides, strict=True):
        index = step * torch.arange(len(axis))[:, None] + torch.arange(len(offset))
        torch.testing.assert_close(cells[index], axis.double()[:, None] + offset.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("reach", [0.4, 0.45], ids=["the paper's", "nearly one step"])
def test_a_spacing_that_is_no_multiple_of_the_step_has_no_lattice(reach: float) -> None:
    axes, offsets = [line(32, 1.0)] * 3, [line(15, reach)] * 3
    assert common_lattice(axes, offsets) is None
    assert common_lattice(axes, [line(15, 14 / 31)] * 3) is not None


def test_uneven_points_and_steps_wider_than_the_spacing_have_no_lattice() -> None:
    even = line(5, 1.0)
    assert common_lattice([even] * 3, [line(3, 0.5)] * 3) is not None
    assert common_lattice([even, even, even**3], [line(3, 0.5)] * 3) is None
    assert common_lattice([even] * 3, [line(3, 0.5)] * 2 + [torch.tensor([-0.5, 0.1, 0.5]).double()]) is None
    assert common_lattice([even] * 3, [line(3, 1.0)] * 3) is None
