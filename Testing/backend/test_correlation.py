"""Control points, displacement labels and the dissimilarity volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from backend.oracles import layers
from pddnet.correlation import (
    Reduction,
    control_points,
    displacement_labels,
    dissimilarity_volume,
)

counts = st.integers(1, 4)
shapes = st.tuples(counts, counts, counts)
sizes = st.tuples(*[st.integers(2, 6)] * 3)
reaches = st.tuples(*[st.floats(0.05, 1.5)] * 3)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def features(shape: tuple[int, ...], channels: int = 2) -> torch.Tensor:
    return torch.randn(1, channels, *shape, dtype=torch.float64)


@given(shapes)
def test_control_points_span_the_cube_in_x_y_z(shape: tuple[int, int, int]) -> None:
    points = control_points(shape, dtype=torch.float64)
    np.testing.assert_allclose(points, layers.points_of(shape, (1, 1, 1)), atol=1e-15)


@given(shapes, reaches)
def test_labels_reach_as_far_as_asked_along_each_axis(
    shape: tuple[int, int, int], reach: tuple[float, float, float]
) -> None:
    labels = displacement_labels(shape, reach, dtype=torch.float64)
    np.testing.assert_allclose(labels, layers.points_of(shape, reach), atol=1e-15)


def test_the_papers_labels_are_sevenths_of_the_reach() -> None:
    along_x = displacement_labels(15, 0.4, dtype=torch.float64)[7, 7]
    np.testing.assert_allclose(along_x[:, 0], 0.4 * np.arange(-7, 8) / 7, atol=1e-15)
    assert along_x[:, 1:].abs().max() < 1e-15


@pytest.mark.parametrize("wrong", [0, -1, (3, 3), (3, 0, 3), (2.5, 3, 3)])
def test_an_impossible_number_of_points_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ValueError, match="grid_shape is"):
        control_points(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0.0, -0.4, float("nan"), (0.4, 0.4), (0.4, 0.4, float("inf"))])
def test_an_impossible_reach_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ValueError, match="reach is"):
        displacement_labels(3, wrong)  # type: ignore[arg-type]


@examples(max_examples=25)
@given(sizes, sizes, shapes, shapes, reaches)
def test_dissimilarities_are_the_squared_differences_of_the_formula(
    fixed_size: tuple[int, ...],
    moving_size: tuple[int, ...],
    grid: tuple[int, int, int],
    width: tuple[int, int, int],
    reach: tuple[float, float, float],
) -> None:
    fixed, moving = features(fixed_size), features(moving_size)
    points = control_points(grid, dtype=torch.float64)
    labels = displacement_labels(width, reach, dtype=torch.float64)
    expected = layers.dissimilarity(fixed[0].numpy(), moving[0].numpy(), points.numpy(), labels.numpy())
    found = dissimilarity_volume(fixed, moving, points, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    mean = dissimilarity_volume(fixed, moving, points, labels, reduction="mean")
    np.testing.assert_allclose(mean, expected / 2, rtol=1e-10, atol=1e-10)


def test_points_that_form_no_lattice_give_the_same_formula() -> None:
    fixed, moving = features((4, 5, 6)), features((5, 3, 4))
    points = control_points((2, 3, 2), dtype=torch.float64) + 0.2 * torch.randn(
        2, 3, 2, 3, dtype=torch.float64
    )
    labels = displacement_labels((3, 2, 4), 0.5, dtype=torch.float64)
    inside = points.clamp(-1, 1)
    expected = layers.dissimilarity(fixed[0].numpy(), moving[0].numpy(), inside.numpy(), labels.numpy())
    np.testing.assert_allclose(dissimilarity_volume(fixed, moving, inside, labels), expected, atol=1e-10)


def test_a_shift_of_the_moving_image_is_the_label_of_least_dissimilarity() -> None:
    moving = features((9, 9, 9), channels=4)
    fixed = torch.roll(moving, shifts=(-1, 2, 1), dims=(2, 3, 4))  # fixed(p) = moving(p + (x -1, y -2, z +1))
    points = control_points(9, dtype=torch.float64)[2:-2, 2:-2, 2:-2].contiguous()
    labels = displacement_labels(5, 0.5, dtype=torch.float64)  # steps of one voxel
    best = dissimilarity_volume(fixed, moving, points, labels).flatten(3).argmin(3)
    voxels = labels.reshape(-1, 3)[best] / 0.25
    assert torch.equal(voxels.round(), torch.tensor([-1.0, -2.0, 1.0]).double().expand_as(voxels))


def test_exchanged_axes_would_be_noticed() -> None:
    fixed, moving = features((4, 5, 6)), features((4, 5, 6))
    points, labels = control_points(3, dtype=torch.float64), displacement_labels(3, 0.5, dtype=torch.float64)
    right = dissimilarity_volume(fixed, moving, points, labels)
    flipped = dissimilarity_volume(fixed, moving, points, labels.flip(-1))
    negated = dissimilarity_volume(fixed, moving, points, -labels)
    assert (right - flipped).abs().mean() > 0.1 * right.mean()
    assert (right - negated).abs().mean() > 0.1 * right.mean()


@pytest.mark.parametrize("reach", [0.4, 2.0], ids=["off the lattice", "on the lattice"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_reach_both_feature_volumes(reach: float, reduction: Reduction) -> None:
    fixed, moving = features((3, 2, 4)).requires_grad_(), features((2, 3, 3)).requires_grad_()
    points = control_points((2, 3, 2), dtype=torch.float64)
    labels = displacement_labels((2, 3, 2), reach, dtype=torch.float64)

    def volume(f: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return dissimilarity_volume(f, m, points, labels, reduction=reduction)

    assert torch.autograd.gradcheck(volume, (fixed, moving))


def test_points_that_form_no_lattice_have_gradients_too() -> None:
    fixed, moving = features((3, 2, 4)).requires_grad_(), features((2, 3, 3)).requires_grad_()
    points = 0.5 * torch.rand(2, 1, 2, 3, dtype=torch.float64)
    labels = displacement_labels(2, 0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, m: dissimilarity_volume(f, m, points, labels), (fixed, moving))


def test_no_dissimilarity_is_negative_where_the_features_are_the_same() -> None:
    feature = 100 + torch.randn(1, 3, 5, 5, 5)
    for reach in (0.4, 1.0):
        found = dissimilarity_volume(feature, feature, control_points(5), displacement_labels(3, reach))
        assert found.min() >= 0
        assert found[..., 1, 1, 1].max() < 1e-4 * found.mean()


def test_the_graph_changes_nothing_in_the_values() -> None:
    fixed, moving = features((3, 4, 5)), features((3, 4, 5))
    points, labels = control_points(3, dtype=torch.float64), displacement_labels(3, 0.4, dtype=torch.float64)
    plain = dissimilarity_volume(fixed, moving, points, labels, reduction="mean")
    traced = dissimilarity_volume(fixed.requires_grad_(), moving, points, labels, reduction="mean")
    torch.testing.assert_close(plain, traced.detach(), rtol=1e-14, atol=1e-14)


def test_half_precision_is_storage_only() -> None:
    fixed, moving = features((5, 6, 7)).float(), features((5, 6, 7)).float()
    points, labels = control_points(4), displacement_labels(5, 0.4)
    whole = dissimilarity_volume(fixed, moving, points, labels)
    half = dissimilarity_volume(fixed, moving, points, labels, storage_dtype=torch.float16)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, whole.half(), rtol=0, atol=0)


def test_the_hook_can_end_the_computation() -> None:
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    f = features((4, 4, 4))
    points, labels = control_points(40, dtype=torch.float64), displacement_labels(2, 0.4, dtype=torch.float64)
    with pytest.raises(KeyboardInterrupt):
        dissimilarity_volume(f, f, points, labels, between_chunks=stop)
    assert calls == 3


@pytest.mark.parametrize(
    ("fixed", "moving", "message"),
    [
        ((2, 2, 3, 3, 3), (1, 2, 3, 3, 3), "fixed_features have shape"),
        ((1, 2, 3, 3, 3), (2, 3, 3, 3), "moving_features have shape"),
        ((1, 2, 3, 3, 3), (1, 4, 3, 3, 3), "2 channels and moving_features 4"),
    ],
)
def test_features_that_do_not_fit_are_refused_by_name(
    fixed: tuple[int, ...], moving: tuple[int, ...], message: str
) -> None:
    points, labels = control_points(2), displacement_labels(2, 0.4)
    with pytest.raises(ValueError, match=message):
        dissimilarity_volume(torch.zeros(fixed), torch.zeros(moving), points, labels)


def test_flattened_points_and_an_unknown_reduction_are_refused() -> None:
    f, points, labels = torch.zeros(1, 1, 3, 3, 3), control_points(2), displacement_labels(2, 0.4)
    with pytest.raises(ValueError, match="labels have shape"):
        dissimilarity_volume(f, f, points, labels.reshape(-1, 3))
    with pytest.raises(ValueError, match="reduction is 'max'"):
        dissimilarity_volume(f, f, points, labels, reduction="max")  # type: ignore[arg-type]


@cuda
def test_cpu_and_cuda_agree() -> None:
    fixed, moving = features((6, 5, 7)), features((6, 5, 7))
    points, labels = (
        control_points((3, 4, 5), dtype=torch.float64),
        displacement_labels((3, 5, 4), 0.4, dtype=torch.float64),
    )
    on_cpu = dissimilarity_volume(fixed, moving, points, labels)
    on_gpu = dissimilarity_volume(*(t.cuda() for t in (fixed, moving, points, labels)))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-10, atol=1e-10)
