"""Min-convolution, mean field, the two rounds, and what is read off the probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from backend.oracles import layers
from pddnet.correlation import displacement_labels
from pddnet.message_passing import band_matrix, mean_field, min_convolution
from pddnet.regularisation import (
    PUBLISHED_WEIGHTS,
    Regularisation,
    RegularisationWeights,
    diffusion,
    displacement_covariance_diagonal,
    entropy,
    expected_displacement,
    regularise,
    softmax_over_labels,
    upsample_displacement,
)

shapes = st.tuples(*[st.integers(1, 4)] * 3, *[st.integers(1, 5)] * 3)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def volume(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype)


@examples(max_examples=25)
@given(shapes)
def test_min_convolution_is_pad_minimum_and_two_averages(shape: tuple[int, ...]) -> None:
    cost = volume(shape)
    np.testing.assert_allclose(min_convolution(cost), layers.min_convolution(cost.numpy()), atol=1e-12)


@examples(max_examples=25)
@given(shapes)
def test_mean_field_is_pad_and_two_averages_over_control_points(shape: tuple[int, ...]) -> None:
    cost = volume(shape)
    np.testing.assert_allclose(mean_field(cost), layers.mean_field(cost.numpy()), atol=1e-12)


@examples(max_examples=15)
@given(shapes, st.tuples(*[st.floats(-2, 2)] * 6))
def test_two_rounds_with_any_six_weights_follow_the_paper(
    shape: tuple[int, ...], alpha: tuple[float, ...]
) -> None:
    data, weights = volume(shape), RegularisationWeights(*alpha)
    expected = layers.regularise(data.numpy(), asdict(weights))
    np.testing.assert_allclose(regularise(data, weights), expected, atol=1e-10)


def test_the_two_axes_triples_are_not_interchangeable() -> None:
    cost = volume((3, 4, 5, 3, 4, 5))
    swapped = cost.permute(3, 4, 5, 0, 1, 2)
    assert (mean_field(cost) - min_convolution(swapped).permute(3, 4, 5, 0, 1, 2)).abs().max() > 0.1
    assert (min_convolution(cost) + min_convolution(-cost)).abs().max() > 0.1


def test_volumes_that_are_not_contiguous_are_filtered_alike() -> None:
    cost = volume((3, 4, 5, 3, 4, 2)).permute(2, 0, 1, 5, 3, 4)
    for layer in (min_convolution, mean_field, Regularisation(PUBLISHED_WEIGHTS)):
        torch.testing.assert_close(layer(cost), layer(cost.contiguous()))


@pytest.mark.parametrize("layer", [min_convolution, mean_field])
def test_layers_widen_half_precision(layer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    cost = volume((3, 4, 2, 3, 2, 4)).half()
    assert layer(cost).dtype == torch.float32
    torch.testing.assert_close(layer(cost), layer(cost.float()))


def test_a_parabola_keeps_its_minimum_and_a_lone_outlier_loses_its_height() -> None:
    line = torch.arange(-3.0, 4.0)
    bowl = (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2)[None, None, None]
    enveloped = min_convolution(bowl)
    assert enveloped.argmin() == bowl.argmin()
    spiked = bowl.clone()
    spiked[0, 0, 0, 5, 3, 3] += 100
    torch.testing.assert_close(min_convolution(spiked)[0, 0, 0, 1, 3, 3], enveloped[0, 0, 0, 1, 3, 3])
    assert (min_convolution(spiked) - enveloped).max() < 10


def test_a_cost_that_is_the_same_everywhere_passes_the_mean_field_unchanged() -> None:
    cost = volume((1, 1, 1, 3, 2, 4)).expand(4, 3, 5, 3, 2, 4).contiguous()
    torch.testing.assert_close(mean_field(cost), cost)


def test_arguments_are_not_changed() -> None:
    cost = volume((3, 3, 3, 3, 3, 3), torch.float32)
    before = cost.clone()
    for function in (min_convolution, mean_field, softmax_over_labels, Regularisation()):
        function(cost)
        assert torch.equal(cost, before)


def test_probabilities_sum_to_one() -> None:
    probabilities = regularise(volume((3, 4, 2, 5, 3, 4), torch.float32), PUBLISHED_WEIGHTS)
    torch.testing.assert_close(probabilities.flatten(3).sum(3), torch.ones(3, 4, 2))


def test_the_biases_cancel_and_only_two_products_matter() -> None:
    data = volume((3, 3, 3, 4, 4, 4)).square()
    first = regularise(data, RegularisationWeights(1.2, 0.0, 1.1, -0.7, 0.0, 1.3))
    biased = regularise(data, RegularisationWeights(1.2, 5.0, 1.1, -0.7, -3.0, 1.3))
    shared = regularise(data, RegularisationWeights(2.4, 0.0, 0.55, -0.35, 0.0, 1.3))
    torch.testing.assert_close(first, biased)
    torch.testing.assert_close(first, shared)
    other = regularise(data, RegularisationWeights(1.2, 0.0, 1.1, 0.7, 0.0, 1.3))
    assert (first - other).abs().max() > 0.01 * first.max()


@pytest.mark.parametrize("function", [min_convolution, mean_field])
def test_layers_have_the_gradient_of_their_values(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    cost = torch.randperm(2 * 3 * 2 * 3 * 2 * 4).double().view(2, 3, 2, 3, 2, 4).requires_grad_()  # no ties
    assert torch.autograd.gradcheck(function, (cost,), fast_mode=True)


def test_labels_that_tie_for_a_minimum_share_its_gradient() -> None:
    cost = torch.full((1, 1, 1, 1, 1, 4), 2.0, dtype=torch.float64)
    cost[..., 1:3] = 1.0  # as low as each other
    cost.requires_grad_()
    min_convolution(cost).sum().backward()
    assert cost.grad is not None
    first, second, third, fourth = cost.grad.flatten().tolist()
    assert (first, second) == pytest.approx((fourth, third))
    assert sum((first, second, third, fourth)) == pytest.approx(4)
    assert second > 1


def test_without_the_mean_field_the_rounds_are_min_convolutions_alone() -> None:
    data, w = volume((2, 3, 2, 4, 3, 5)).square(), PUBLISHED_WEIGHTS
    found = regularise(data, w, mean_field=False)
    scaled = w.data_weight * data + w.data_bias
    cost = w.repeat_weight * scaled + w.message_weight * min_convolution(scaled) + w.message_bias
    torch.testing.assert_close(found, softmax_over_labels(min_convolution(cost), w.sharpness))
    assert (found - regularise(data, w)).abs().max() > 0.01 * found.max()


def test_the_six_weights_are_trained_by_name() -> None:
    module = Regularisation(PUBLISHED_WEIGHTS).double()
    names = [name for name, _ in module.named_parameters()]
    assert tuple(names) == layers.ALPHAS
    data = volume((2, 2, 3, 3, 2, 3)).requires_grad_()

    def outcome(data: torch.Tensor, *alpha: torch.Tensor) -> torch.Tensor:
        return regularise(data, RegularisationWeights(*alpha))

    alphas = [parameter.detach().requires_grad_() for parameter in module.parameters()]
    assert torch.autograd.gradcheck(outcome, (data, *alphas), fast_mode=True)


def test_training_and_inference_compute_the_same_values() -> None:
    module, data = Regularisation(PUBLISHED_WEIGHTS), volume((4, 3, 5, 5, 4, 3), torch.float32).square()
    traced = module(data)
    assert traced.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(module(data), traced.detach())


@pytest.mark.parametrize("block", [1, 50, 400])
def test_the_size_of_the_pieces_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = volume((3, 4, 5, 3, 4, 3)).square()
    whole = regularise(data, PUBLISHED_WEIGHTS)
    for size in ("_ROWS_AT_ONCE_CPU", "_RUNS_AT_ONCE_CPU"):
        monkeypatch.setattr(f"pddnet.message_passing.{size}", block)
    torch.testing.assert_close(regularise(data, PUBLISHED_WEIGHTS), whole, rtol=1e-12, atol=1e-14)


def test_moments_and_entropy_are_their_sums_over_labels() -> None:
    probabilities = softmax_over_labels(volume((2, 3, 2, 3, 4, 2)))
    labels = displacement_labels((3, 4, 2), (0.1, 0.4, 0.2), dtype=torch.float64)
    mean, variance, nats = layers.moments(probabilities.numpy(), labels.numpy())
    np.testing.assert_allclose(expected_displacement(probabilities, labels), mean, atol=1e-14)
    np.testing.assert_allclose(displacement_covariance_diagonal(probabilities, labels), variance, atol=1e-14)
    np.testing.assert_allclose(entropy(probabilities), nats, atol=1e-12)


def test_certainty_has_no_spread_and_no_preference_has_the_most() -> None:
    certain = torch.zeros(1, 1, 1, 3, 3, 3)
    certain[..., 0, 1, 2] = 1
    labels = displacement_labels(3, 0.4)
    torch.testing.assert_close(
        expected_displacement(certain, labels).flatten(), torch.tensor([0.4, 0.0, -0.4])
    )
    assert displacement_covariance_diagonal(certain, labels).abs().max() < 1e-7
    assert entropy(certain).item() == 0
    torch.testing.assert_close(
        entropy(torch.full_like(certain, 1 / 27)), torch.full((1, 1, 1), np.log(27.0)).float()
    )


@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 3, 4), (1, 1, 1)])
def test_upsampling_puts_outer_points_on_border_voxels(shape: tuple[int, int, int]) -> None:
    displacement = volume((2, 3, 4, 3))
    found = upsample_displacement(displacement, shape)[0]
    if shape == (1, 1, 1):  # a single voxel takes the first point
        np.testing.assert_allclose(found[:, 0, 0, 0], displacement[0, 0, 0], atol=1e-14)
    else:
        np.testing.assert_allclose(found, layers.upsample(displacement.numpy(), shape), atol=1e-12)


def test_a_linear_displacement_is_upsampled_to_the_same_linear_displacement() -> None:
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (3, 4, 5)), indexing="ij")
    displacement = torch.stack((0.1 * x + 0.2 * y, -0.3 * z, 0.05 * y), -1)
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (7, 9, 6)), indexing="ij")
    wanted = torch.stack((0.1 * x + 0.2 * y, -0.3 * z, 0.05 * y))[None]
    torch.testing.assert_close(upsample_displacement(displacement, (7, 9, 6)), wanted)


def test_diffusion_is_the_squared_slope_and_sees_no_translation() -> None:
    z = torch.arange(4.0)[:, None, None, None].expand(4, 3, 5, 3)
    assert diffusion(2 * z).item() == pytest.approx(4.0)
    assert diffusion(torch.ones(4, 3, 5, 3)).item() == 0
    assert diffusion(torch.ones(1, 1, 1, 3)).item() == 0
    displacement = volume((2, 3, 2, 3)).requires_grad_()
    assert torch.autograd.gradcheck(diffusion, (displacement,))


@given(st.integers(1, 7))
def test_a_band_matrix_keeps_constants(size: int) -> None:
    matrix = band_matrix(size, (0.25, 0.5, 0.25), like=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(matrix.sum(1), torch.ones(size, dtype=torch.float64))


def test_half_precision_storage_moves_the_expectation_by_less_than_a_hundredth_of_a_label() -> None:
    data = 40 * torch.rand(4, 5, 4, 7, 7, 7).square()
    labels = displacement_labels(7, 0.4)
    whole = expected_displacement(regularise(data, PUBLISHED_WEIGHTS), labels)
    half = regularise(data.half(), PUBLISHED_WEIGHTS)
    assert half.dtype == torch.float32
    step = 0.8 / 6
    assert (expected_displacement(half, labels) - whole).abs().max() < 1e-2 * step


@pytest.mark.parametrize("shape", [(3, 3, 3, 27), (3, 3, 0, 3, 3, 3)])
def test_a_volume_of_other_dimensions_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cost has shape"):
        min_convolution(torch.zeros(shape))


def test_labels_of_another_search_are_refused() -> None:
    with pytest.raises(ValueError, match="labels have shape"):
        expected_displacement(torch.ones(1, 1, 1, 3, 3, 3), displacement_labels(5, 0.4))
    with pytest.raises(ValueError, match="displacement has shape"):
        upsample_displacement(torch.ones(1, 3, 2, 2, 2), (4, 4, 4))


def test_every_layer_can_be_ended_between_pieces() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    cost = torch.zeros(2, 2, 2, 3, 3, 3)
    for layer in (min_convolution, mean_field):
        with pytest.raises(KeyboardInterrupt):
            layer(cost, between_chunks=stop)
    with pytest.raises(KeyboardInterrupt):
        regularise(cost, PUBLISHED_WEIGHTS, between_chunks=stop)


def with_published_weights(data: torch.Tensor) -> torch.Tensor:
    return regularise(data, PUBLISHED_WEIGHTS)


@cuda
@pytest.mark.parametrize("layer", [min_convolution, mean_field, with_published_weights])
def test_cpu_and_cuda_agree(layer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    cost = volume((4, 5, 3, 5, 4, 6))
    torch.testing.assert_close(layer(cost.cuda()).cpu(), layer(cost), rtol=1e-9, atol=1e-9)
