"""Sums over displaced samples by lines of the volume, against every sample gathered; and their adjoints."""

from __future__ import annotations

import torch

from pddnet.correlation import control_points, displacement_labels
from pddnet.interpolation import lattice_axes, lattice_weights, sample_at
from pddnet.plane_lines import PlaneLines

GRID, WIDTH, SHAPE = (3, 2, 4), (3, 5, 2), (4, 6, 5)
POINTS = control_points(GRID, dtype=torch.float64)
LABELS = displacement_labels(WIDTH, (0.3, 0.5, 0.9), dtype=torch.float64)


def planes(volume: torch.Tensor) -> PlaneLines:
    axes, offsets = lattice_axes(POINTS), lattice_axes(LABELS)
    assert axes is not None
    assert offsets is not None
    return PlaneLines(volume, lattice_weights(axes, offsets, SHAPE))


def test_a_sum_over_labels_is_that_over_the_samples() -> None:
    volume = torch.randn(2, *SHAPE, dtype=torch.float64)
    sums = torch.randn(*GRID, *WIDTH, dtype=torch.float64)
    made = planes(volume)
    for k in range(GRID[0]):
        found = torch.bmm(made.spread(sums[k]), made.lines(k))  # (Kh, Kw, C)
        for h in range(GRID[1]):
            for w in range(GRID[2]):
                samples = sample_at(volume[None], POINTS[k, h, w] + LABELS)  # (C, Ld, Lh, Lw)
                torch.testing.assert_close(found[h, w], (samples * sums[k, h, w]).sum((1, 2, 3)))


def test_gathering_is_the_adjoint_of_spreading_and_adding_that_of_lines() -> None:
    volume = torch.randn(2, *SHAPE, dtype=torch.float64)
    made = planes(volume)
    sums = torch.randn(*GRID[1:], *WIDTH, dtype=torch.float64)
    columns = torch.randn(GRID[2], GRID[1], *WIDTH[:2], SHAPE[2], dtype=torch.float64)
    spread = made.spread(sums).transpose(0, 1).reshape_as(columns)
    torch.testing.assert_close((spread * columns).sum(), (sums * made.gathered(columns)).sum())
    lines = made.lines(1)
    other = torch.randn_like(lines)
    back = torch.zeros(*SHAPE, 2, dtype=torch.float64)
    made.add_to_volume(back, 1, other)
    torch.testing.assert_close((lines * other).sum(), (back.movedim(3, 0) * volume).sum())
