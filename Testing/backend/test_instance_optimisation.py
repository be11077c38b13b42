"""The two fits of a displacement to one pair."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pddnet.correlation import control_points, displacement_labels
from pddnet.instance_optimisation import (
    PUBLISHED_FIT,
    STEADY_FIT,
    FeatureRefinement,
    InstanceOptimisation,
    optimise_instance,
    refine_on_features,
)
from pddnet.regularisation import diffusion, expected_displacement, softmax_over_labels

REACH = (0.2, 0.3, 0.4)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def probable(grid: tuple[int, int, int], width: tuple[int, int, int], sharpness: float = 3.0) -> torch.Tensor:
    return softmax_over_labels(torch.randn(*grid, *width, dtype=torch.float64), sharpness)


def as_published(probabilities: torch.Tensor, initial: torch.Tensor, iterations: int) -> torch.Tensor:
    """The fit with pooling layers and a sampled grid, channels first, as the published script goes about it."""
    grid = initial.permute(3, 0, 1, 2)[None].clone().requires_grad_()
    points = control_points(probabilities.shape[:3], dtype=initial.dtype)[None]
    adam = torch.optim.Adam([grid], lr=0.02)
    for _ in range(iterations):
        adam.zero_grad()
        fitted = F.avg_pool3d(F.avg_pool3d(grid, 3, 1, 1), 3, 1, 1)
        at_points = F.grid_sample(fitted, points, padding_mode="border", align_corners=True)[0]
        relative = at_points.flatten(1).T / torch.tensor(REACH)
        sampled = F.grid_sample(
            probabilities.flatten(0, 2)[:, None], relative[:, None, None, None], align_corners=True
        )
        slopes = sum((fitted.diff(dim=axis) ** 2).mean() for axis in (2, 3, 4))
        (-sampled.mean() + 1.5 * slopes).backward()
        adam.step()
    return fitted.detach()[0].permute(1, 2, 3, 0)


@pytest.mark.parametrize("iterations", [1, 10, 50])
def test_the_fit_takes_the_published_steps(iterations: int) -> None:
    probabilities = probable((4, 3, 5), (5, 4, 6))
    labels = displacement_labels((5, 4, 6), REACH, dtype=torch.float64)
    initial = expected_displacement(probabilities, labels)
    found = optimise_instance(probabilities, initial, REACH, replace(PUBLISHED_FIT, iterations=iterations))
    torch.testing.assert_close(found, as_published(probabilities, initial, iterations), rtol=0, atol=1e-6)


def test_the_steady_fit_is_the_mean_of_the_published_fits_around_its_end() -> None:
    probabilities, initial = probable((4, 3, 5), (5, 4, 6)), torch.zeros(4, 3, 5, 3, dtype=torch.float64)
    around = [as_published(probabilities, initial, iterations) for iterations in range(46, 55)]
    found = optimise_instance(probabilities, initial, REACH, STEADY_FIT)
    torch.testing.assert_close(found, torch.stack(around).mean(0), rtol=0, atol=1e-6)


def test_a_label_that_all_points_prefer_is_where_they_go() -> None:
    labels = displacement_labels(5, REACH, dtype=torch.float64)
    wanted = labels[1, 2, 3]
    cost = ((labels - wanted) / torch.tensor(REACH)).square().sum(-1)
    probabilities = softmax_over_labels(cost.expand(9, 9, 9, 5, 5, 5).contiguous(), 6.0)
    found = optimise_instance(probabilities, torch.zeros(9, 9, 9, 3, dtype=torch.float64), REACH)
    middle = found[3:6, 3:6, 3:6].mean((0, 1, 2))  # zeros beyond the border pull at the outer points
    step = 2 * torch.tensor(REACH) / torch.tensor((4, 4, 4))
    assert ((middle - wanted).abs() < 0.25 * step).all()
    assert ((middle - wanted.flip(-1)).abs() > 0.25 * step).any()


def test_a_point_that_knows_nothing_follows_its_neighbours() -> None:
    labels = displacement_labels(5, REACH, dtype=torch.float64)
    cost = ((labels - labels[2, 2, 3]) / torch.tensor(REACH)).square().sum(-1)
    probabilities = softmax_over_labels(cost.expand(5, 5, 5, 5, 5, 5).contiguous(), 6.0)
    probabilities[2, 2, 2] = 1 / 125
    found = optimise_instance(probabilities, torch.zeros(5, 5, 5, 3, dtype=torch.float64), REACH)
    assert found[2, 2, 2, 0] > 0.5 * labels[2, 2, 3, 0]


def test_the_fit_is_deterministic_and_changes_neither_argument() -> None:
    probabilities, initial = probable((3, 4, 3), (3, 3, 3)).float(), 0.1 * torch.randn(3, 4, 3, 3)
    before = probabilities.clone(), initial.clone()
    first = optimise_instance(probabilities, initial, REACH)
    assert torch.equal(first, optimise_instance(probabilities, initial, REACH))
    assert torch.equal(probabilities, before[0])
    assert torch.equal(initial, before[1])
    assert not first.requires_grad


def test_the_fit_runs_under_no_grad_and_without_iterations() -> None:
    probabilities, initial = probable((2, 2, 2), (3, 3, 3)), torch.randn(2, 2, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        assert optimise_instance(probabilities, initial, REACH).shape == (2, 2, 2, 3)
    none = optimise_instance(probabilities, initial, REACH, InstanceOptimisation(iterations=0))
    assert torch.equal(none, initial)


def test_the_hook_is_called_before_each_iteration_and_can_end_the_fit() -> None:
    probabilities, initial = probable((2, 2, 2), (3, 3, 3)), torch.zeros(2, 2, 2, 3, dtype=torch.float64)
    calls: list[None] = []
    optimise_instance(
        probabilities,
        initial,
        REACH,
        InstanceOptimisation(iterations=7),
        between_chunks=lambda: calls.append(None),
    )
    assert len(calls) == 7

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimise_instance(probabilities, initial, REACH, between_chunks=stop)


def blobs(points: torch.Tensor) -> torch.Tensor:
    """Four smooth features (1, 4, D, H, W) of the cube at points (D, H, W, 3)."""
    x, y, z = points.unbind(-1)
    wave = [torch.sin(3 * x + y), torch.cos(2.5 * y - z), torch.sin(2 * z + x + 1), torch.cos(2 * x * y + z)]
    return torch.stack(wave)[None]


def test_features_moved_by_a_known_displacement_are_brought_back() -> None:
    identity = control_points((12, 14, 10), dtype=torch.float64)
    x, y, z = identity.unbind(-1)
    edge = (1 - x**2) * (1 - y**2) * (1 - z**2)
    true = torch.stack((0.2 * edge, -0.15 * edge, 0.1 * edge), -1)
    moving = blobs(identity)
    fixed = blobs(identity + true)
    config = FeatureRefinement(iterations=150, learning_rate=0.1, diffusion_weight=0.001)
    found = refine_on_features(fixed, moving, torch.zeros_like(identity), config)
    inner = (slice(2, -2),) * 3
    assert (found - true)[inner].norm(dim=-1).mean() < 0.15 * true[inner].norm(dim=-1).mean()
    assert (found - true.flip(-1))[inner].norm(dim=-1).mean() > 0.5 * true[inner].norm(dim=-1).mean()
    assert (found + true)[inner].norm(dim=-1).mean() > true[inner].norm(dim=-1).mean()


def test_more_diffusion_gives_a_smoother_refinement() -> None:
    fixed, moving = torch.randn(1, 2, 6, 7, 8), torch.randn(1, 2, 6, 7, 8)
    initial = torch.zeros(6, 7, 8, 3)
    weak = refine_on_features(fixed, moving, initial, FeatureRefinement(diffusion_weight=0.01))
    strong = refine_on_features(fixed, moving, initial, FeatureRefinement(diffusion_weight=10.0))
    assert diffusion(strong) < 0.2 * diffusion(weak)
    assert torch.equal(initial, torch.zeros(6, 7, 8, 3))
    again = refine_on_features(fixed, moving, initial, FeatureRefinement(diffusion_weight=0.01))
    assert torch.equal(weak, again)


def test_the_refinement_does_not_care_how_the_cube_is_divided() -> None:
    initial = 0.1 * torch.randn(4, 5, 6, 3, dtype=torch.float64)
    features = torch.ones(1, 1, 4, 5, 6, dtype=torch.float64)
    one = FeatureRefinement(iterations=1, smoothing_passes=0)
    torch.testing.assert_close(refine_on_features(features, features, initial, one), initial)


def test_inputs_that_do_not_fit_are_refused() -> None:
    probabilities, initial = probable((2, 2, 2), (3, 3, 3)), torch.zeros(2, 2, 2, 3)
    with pytest.raises(ValueError, match="probabilities have shape"):
        optimise_instance(probabilities, initial.permute(3, 0, 1, 2), REACH)
    with pytest.raises(ValueError, match="reach is"):
        optimise_instance(probabilities, initial, (0.4,))
    with pytest.raises(ValueError, match="moving_features"):
        refine_on_features(torch.zeros(1, 2, 3, 3, 3), torch.zeros(1, 2, 3, 3, 4), torch.zeros(3, 3, 3, 3))


@cuda
def test_cpu_and_cuda_agree_and_cuda_repeats_itself() -> None:
    probabilities, initial = (
        probable((4, 3, 5), (5, 4, 6)),
        0.1 * torch.randn(4, 3, 5, 3, dtype=torch.float64),
    )
    on_gpu = optimise_instance(probabilities.cuda(), initial.cuda(), REACH)
    torch.testing.assert_close(
        on_gpu.cpu(), optimise_instance(probabilities, initial, REACH), rtol=0, atol=1e-6
    )
    assert torch.equal(on_gpu, optimise_instance(probabilities.cuda(), initial.cuda(), REACH))
