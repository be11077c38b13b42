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
from pddnet.features.mind_ssc import mind_ssc
from pddnet.interpolation import sample_at
from pddnet.losses import (
    class_weights,
    mind_loss,
    non_local_label_loss,
    one_hot,
    soft_dice_loss,
    transfer_labels,
    warp_holding_border,
    warped_label_loss,
)
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


def test_labels_that_want_a_gradient_are_refused_instead_of_getting_none() -> None:
    moving, points = organs((3, 3, 3)).requires_grad_(), control_points(2, dtype=torch.float64)
    labels = displacement_labels(3, 0.4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"moving_one_hot requires a gradient.*detach"):
        transfer_labels(moving, probable((2, 2, 2), (3, 3, 3)), points, labels)


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


def displacement(shape: tuple[int, int, int], size: float = 0.3) -> torch.Tensor:
    return (torch.rand(1, 3, *shape, dtype=torch.float64) - 0.5) * size


def warped_by_hand(volume: torch.Tensor, shift: torch.Tensor) -> np.ndarray:
    """(C, D, H, W) of the volume at identity + shift, voxel by voxel."""
    points = control_points(tuple(volume.shape[2:]), dtype=torch.float64).numpy()
    out = np.zeros(volume.shape[1:])
    for k in np.ndindex(*volume.shape[2:]):
        position = points[k] + shift[(0, slice(None), *k)].numpy()
        out[(slice(None), *k)] = layers.sample(volume[0].numpy(), position, "border")
    return out


def test_warped_labels_are_compared_voxel_by_voxel() -> None:
    moving, fixed, shift = organs((4, 5, 3)), organs((4, 5, 3)), displacement((4, 5, 3), 1.0)
    weights = torch.tensor([0.15, 1.0, 2.0]).double()
    np.testing.assert_allclose(
        warp_holding_border(moving, shift)[0], warped_by_hand(moving, shift), atol=1e-12
    )
    squares = (warped_by_hand(moving, shift) - fixed[0].numpy()) ** 2
    expected = (squares * weights.numpy()[:, None, None, None]).mean()
    assert warped_label_loss(moving, fixed, shift, weights).item() == pytest.approx(expected)
    reversed_axes = warped_label_loss(moving, fixed, shift.flip(1), weights).item()
    assert abs(reversed_axes - expected) > 1e-3


def test_soft_dice_is_the_formula_of_the_classes_that_occur() -> None:
    found, wanted = torch.rand(1, 4, 3, 4, 5, dtype=torch.float64), organs((3, 4, 5), 4)
    found[0, 3], wanted[0, 3] = 0, 0
    scores = []
    for c in (1, 2):
        a, b = found[0, c].numpy(), wanted[0, c].numpy()
        scores.append(2 * (a * b).sum() / ((a**2).sum() + (b**2).sum()))
    assert soft_dice_loss(found, wanted).item() == pytest.approx(1 - sum(scores) / 2)
    assert soft_dice_loss(wanted, wanted).item() == pytest.approx(0)
    nothing = torch.zeros_like(wanted)
    nothing[:, 0] = 1
    assert soft_dice_loss(nothing, nothing).item() == 0
    with pytest.raises(ValueError, match="the same shape"):
        soft_dice_loss(found, wanted[:, :3])


def test_the_descriptors_are_those_of_the_warped_image_and_contrast_does_not_matter() -> None:
    fixed, moving = torch.rand(2, 1, 1, 8, 10, 8, dtype=torch.float64)
    shift = displacement((8, 10, 8))
    warped = torch.from_numpy(warped_by_hand(moving, shift))[None]
    expected = (mind_ssc(fixed, stride=2) - mind_ssc(warped, stride=2)).square().mean()
    torch.testing.assert_close(mind_loss(fixed, moving, shift), expected)
    assert mind_loss(fixed, fixed * -3 + 7, shift * 0).item() == pytest.approx(0, abs=1e-12)
    assert expected > 1e-3


@pytest.mark.parametrize("name", ["soft Dice", "warped labels", "descriptors"])
def test_each_loss_of_a_displacement_has_the_gradient_of_its_value(name: str) -> None:
    moving, fixed = organs((4, 5, 4)), organs((4, 5, 4))
    image, other = torch.rand(2, 1, 1, 4, 6, 4, dtype=torch.float64)
    weights = torch.tensor([0.15, 1.0, 2.0]).double()
    losses = {
        "soft Dice": lambda u: soft_dice_loss(warp_holding_border(moving, u), fixed),
        "warped labels": lambda u: warped_label_loss(moving, fixed, u, weights),
        "descriptors": lambda u: mind_loss(image, other, u),
    }
    shape = (4, 6, 4) if name == "descriptors" else (4, 5, 4)
    assert torch.autograd.gradcheck(losses[name], (displacement(shape).requires_grad_(),), fast_mode=True)


def test_soft_dice_has_a_gradient_in_the_labels_found() -> None:
    found = torch.rand(1, 3, 2, 3, 2, dtype=torch.float64).requires_grad_()
    wanted = organs((2, 3, 2))
    assert torch.autograd.gradcheck(lambda f: soft_dice_loss(f, wanted), (found,))
