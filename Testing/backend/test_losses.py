"""Non-local label transfer, its loss and the class weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from backend.oracles import layers
from pddnet.correlation import control_points, displacement_labels
from pddnet.interpolation import sample_at
from pddnet.losses import class_weights, non_local_label_loss, one_hot, transfer_labels
from pddnet.regularisation import softmax_over_labels

counts = st.integers(1, 3)
shapes = st.tuples(counts, counts, counts)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def organs(shape: tuple[int, int, int], classes: int = 3) -> torch.Tensor:
    return one_hot(torch.randint(classes, shape), classes, torch.float64)


def probable(grid: tuple[int, int, int], width: tuple[int, int, int]) -> torch.Tensor:
    return softmax_over_labels(torch.randn(*grid, *width, dtype=torch.float64))


@examples(max_examples=20)
@given(st.tuples(*[st.integers(2, 5)] * 3), shapes, shapes)
def test_labels_are_transferred_as_the_formula_sums_them(
    size: tuple[int, int, int], grid: tuple[int, int, int], width: tuple[int, int, int]
) -> None:
    moving, probabilities = organs(size), probable(grid, width)
    points = control_points(grid, dtype=torch.float64)
    labels = displacement_labels(width, (0.3, 0.5, 0.9), dtype=torch.float64)
    found = transfer_labels(moving, probabilities, points, labels)
    expected = layers.transfer(moving[0].numpy(), probabilities.numpy(), points.numpy(), labels.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-12)


def test_certain_probabilities_transfer_one_displaced_label() -> None:
    moving, points = organs((5, 5, 5)), control_points(5, dtype=torch.float64)
    labels = displacement_labels(3, 0.5, dtype=torch.float64)
    certain = torch.zeros(5, 5, 5, 3, 3, 3, dtype=torch.float64)
    certain[..., 0, 1, 2] = 1  # one voxel along +x, one along -z
    found = transfer_labels(moving, certain, points, labels)
    expected = sample_at(moving, points + torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64))
    torch.testing.assert_close(found, expected)
    wrong = sample_at(moving, points + torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64))
    assert (found - wrong).abs().mean() > 0.1


def test_the_loss_is_the_weighted_mean_square() -> None:
    moving, fixed = organs((4, 5, 3)), organs((4, 5, 3))
    probabilities, weights = probable((2, 3, 2), (3, 2, 2)), torch.tensor([0.15, 1.0, 2.0]).double()
    points, labels = (
        control_points((2, 3, 2), dtype=torch.float64),
        displacement_labels((3, 2, 2), 0.4).double(),
    )
    found = non_local_label_loss(moving, fixed, probabilities, points, labels, weights)
    transferred = layers.transfer(moving[0].numpy(), probabilities.numpy(), points.numpy(), labels.numpy())
    total = 0.0
    for c in range(3):
        for k in np.ndindex(2, 3, 2):
            wanted = layers.sample(fixed[0].numpy(), points[k].numpy(), "border")[c]
            total += float(weights[c]) * (transferred[(c, *k)] - wanted) ** 2
    assert found.item() == pytest.approx(total / (3 * 12))


def test_the_loss_is_nothing_where_identical_labels_stay() -> None:
    moving, points = organs((3, 3, 3)), control_points(3, dtype=torch.float64)
    stay = torch.zeros(3, 3, 3, 3, 3, 3, dtype=torch.float64)
    stay[..., 1, 1, 1] = 1
    labels, weights = displacement_labels(3, 0.4, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    assert non_local_label_loss(moving, moving, stay, points, labels, weights).item() == pytest.approx(
        0, abs=1e-20
    )
    other = organs((3, 3, 3))
    assert non_local_label_loss(moving, other, stay, points, labels, weights).item() > 0.01


def test_the_loss_has_the_gradient_of_its_value() -> None:
    moving, fixed = organs((3, 4, 3)), organs((3, 4, 3))
    probabilities = probable((2, 2, 2), (2, 3, 2)).requires_grad_()
    points, labels = control_points(2, dtype=torch.float64), displacement_labels((2, 3, 2), 0.4).double()
    weights = torch.ones(3, dtype=torch.float64)

    def loss(p: torch.Tensor) -> torch.Tensor:
        return non_local_label_loss(moving, fixed, p, points, labels, weights)

    assert torch.autograd.gradcheck(loss, (probabilities,), fast_mode=True)


def test_class_weights_are_the_inverse_root_of_frequency() -> None:
    maps = [torch.tensor([0] * 80 + [1] * 16), torch.tensor([0] * 20 + [2] * 4)]
    inverse = np.array([100, 16, 4]) ** -0.5
    expected = inverse / inverse.mean()
    expected[0] = 0.15
    np.testing.assert_allclose(class_weights(maps, 3), expected, rtol=1e-6)


def test_a_class_that_never_occurs_weighs_nothing_and_spoils_nothing() -> None:
    weights = class_weights([torch.tensor([0, 0, 1, 3])], 5)
    assert weights[2] == weights[4] == 0
    assert torch.isfinite(weights).all()


def test_one_hot_has_a_channel_for_each_class() -> None:
    labels = torch.randint(4, (3, 4, 5))
    found = one_hot(labels, 4)
    assert found.shape == (1, 4, 3, 4, 5)
    assert torch.equal(found.argmax(1)[0], labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 2, 2), "labels are torch.float32"),
        (torch.zeros(2, 2, dtype=torch.long), "whole numbers"),
        (torch.full((2, 2, 2), 3), "labels run from 3 to 3"),
        (torch.full((2, 2, 2), -1), "labels run from -1"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_hot(labels, 3)


def test_inputs_that_do_not_fit_are_refused() -> None:
    moving, points, labels = (
        organs((3, 3, 3)),
        control_points(2).double(),
        displacement_labels(3, 0.4).double(),
    )
    with pytest.raises(ValueError, match="probabilities have shape"):
        transfer_labels(moving, probable((2, 2, 2), (2, 3, 3)), points, labels)
    with pytest.raises(ValueError, match="one number of classes"):
        non_local_label_loss(moving, moving, probable((2, 2, 2), (3, 3, 3)), points, labels, torch.ones(2))
    with pytest.raises(ValueError, match="label 7"):
        class_weights([torch.tensor([7])], 3)
    with pytest.raises(ValueError, match="no voxels"):
        class_weights([], 3)


@cuda
def test_cpu_and_cuda_agree() -> None:
    moving, probabilities = organs((4, 5, 6)), probable((3, 2, 3), (3, 4, 2))
    points, labels = (
        control_points((3, 2, 3), dtype=torch.float64),
        displacement_labels((3, 4, 2), 0.4, dtype=torch.float64),
    )
    on_cpu = transfer_labels(moving, probabilities, points, labels)
    on_gpu = transfer_labels(*(t.cuda() for t in (moving, probabilities, points, labels)))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-10, atol=1e-10)
