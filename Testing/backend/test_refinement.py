"""Continuous refinement on features: what it lowers, what it finds, and how it is stopped."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pddnet.features.mind_ssc import mind_ssc
from pddnet.lattice import Lattice, warp_on
from pddnet.preprocessing import WorkingScan
from pddnet.refinement import refined

VOXELS = (16, 20, 24)
HALF = Lattice.of_cells(VOXELS, 2)


def nothing() -> None:
    pass


def scan(image: torch.Tensor) -> WorkingScan:
    return WorkingScan(image, torch.ones_like(image), torch.ones_like(image))


def pair(shift: tuple[float, float, float]) -> tuple[WorkingScan, WorkingScan, torch.Tensor]:
    """A moving image of smooth structures, the fixed one that the field `shift` (voxels) makes of it, the field."""
    noise = torch.rand(1, 1, *(n // 2 for n in VOXELS))
    moving = F.interpolate(noise, VOXELS, mode="trilinear")[0]
    field = torch.tensor(shift).view(3, 1, 1, 1).expand(3, *HALF.shape).contiguous()
    fixed = warp_on(moving, Lattice(VOXELS, 1, 0.0), field, HALF)
    return scan(fixed), scan(moving), field


def feature_distance(fixed: WorkingScan, moving: WorkingScan, field: torch.Tensor) -> float:
    warped = warp_on(moving.image, Lattice(VOXELS, 1, 0.0), field, HALF)
    a, b = (mind_ssc(image[None], dilation=2, stride=2) for image in (fixed.image, warped))
    return float((a - b)[..., 1:-1, 1:-1, 1:-1].square().mean())


@pytest.mark.parametrize("stride", [1, 2])
def test_a_small_shift_is_found_and_the_features_come_closer(stride: int) -> None:
    fixed, moving, truth = pair((0.8, -0.6, 0.5))
    start = torch.zeros(3, *HALF.shape)
    found = refined(fixed, moving, start, 60, stride, nothing)
    assert found.shape == start.shape
    assert feature_distance(fixed, moving, found) < 0.5 * feature_distance(fixed, moving, start)
    middle = (slice(None), *(slice(2, -2),) * 3)
    assert (found - truth)[middle].norm(dim=0).mean() < 0.6 * truth[middle].norm(dim=0).mean()


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (8.0, 5.0, -3.0)])
def test_a_true_field_stays_true_however_long_it_is_refined(shift: tuple[float, float, float]) -> None:
    fixed, moving, truth = pair(shift)
    before = truth.clone()
    found = refined(fixed, moving, truth, 30, 2, nothing)
    assert torch.equal(truth, before)
    assert (found - truth).norm(dim=0).max() < 0.3
    assert feature_distance(fixed, moving, found) < 0.01


def test_the_start_counts() -> None:
    fixed, moving, truth = pair((8.0, 5.0, -3.0))
    alone = refined(fixed, moving, torch.zeros_like(truth), 30, 2, nothing)
    led = refined(fixed, moving, truth + 0.5, 30, 2, nothing)
    assert feature_distance(fixed, moving, led) < 0.5 * feature_distance(fixed, moving, alone)


def test_no_iterations_return_the_start() -> None:
    fixed, moving, _ = pair((1.0, 0.0, 0.0))
    start = torch.randn(3, *HALF.shape)
    found = refined(fixed, moving, start, 0, 2, nothing)
    torch.testing.assert_close(found, start, atol=1e-4, rtol=0)  # voxels


def test_it_runs_where_gradients_are_off_and_leaves_none_behind() -> None:
    fixed, moving, truth = pair((0.5, 0.5, 0.0))
    with torch.no_grad():
        found = refined(fixed, moving, torch.zeros_like(truth), 3, 2, nothing)
    assert not found.requires_grad
    assert found.abs().max() > 0


def test_a_caller_can_stop_between_iterations() -> None:
    calls: list[None] = []

    def stop_at_the_third() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt

    fixed, moving, truth = pair((0.5, 0.5, 0.0))
    with pytest.raises(KeyboardInterrupt):
        refined(fixed, moving, truth, 50, 2, stop_at_the_third)
    assert len(calls) == 3


def test_what_lies_outside_the_fixed_body_does_not_pull() -> None:
    fixed, moving, truth = pair((0.8, -0.6, 0.5))
    other = fixed.image.clone()
    other[..., 18:] = torch.rand_like(other[..., 18:])
    body = torch.ones_like(other)
    body[..., 12:] = 0  # the features of what counts look five voxels further

    def found(image: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        return refined(WorkingScan(image, counted, counted), moving, torch.zeros_like(truth), 10, 2, nothing)

    torch.testing.assert_close(found(other, body), found(fixed.image, body))
    everywhere = torch.ones_like(body)
    assert (found(other, everywhere) - found(fixed.image, everywhere)).abs().max() > 0.1
