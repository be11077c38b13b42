"""The feature network: its formula, its two published shapes, its axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from backend.oracles import layers
from pddnet.features.obelisk import (
    Obelisk,
    ObeliskConfig,
    feature_shape,
    infer_config,
    reverse_axes,
)

UNGROUPED = ObeliskConfig(channels=5, offsets=6, hidden=8, groups=1, edge_channels=4)
GROUPED = ObeliskConfig(channels=5, offsets=6, hidden=8, groups=4, edge_channels=4)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def network(config: ObeliskConfig) -> Obelisk:
    """A network in eval mode, float64, with statistics as training would leave them."""
    net = Obelisk(config).double().eval()
    for name, tensor in net.state_dict().items():
        if "running_mean" in name or (name.startswith("batch") and name.endswith("bias")):
            tensor.normal_()
        elif "running_var" in name:
            tensor.uniform_(0.5, 2.0)
    return net


def arrays(net: Obelisk) -> Mapping[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("config", [UNGROUPED, GROUPED], ids=["ungrouped", "grouped"])
def test_features_follow_the_formula(config: ObeliskConfig) -> None:
    net, image = network(config), torch.randn(1, 1, 9, 13, 11, dtype=torch.float64)
    with torch.no_grad():
        found = net(image)
    expected = layers.obelisk(image[0, 0].numpy(), arrays(net), config.groups)
    assert found.shape == (1, 5, 3, 4, 3)
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-9)


def test_weights_trained_on_x_y_z_arrays_see_x_y_z_arrays() -> None:
    ours, theirs = network(UNGROUPED), Obelisk(ObeliskConfig(5, 6, 8, 1, 4, axis_order="xyz")).double().eval()
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(1, 1, 9, 13, 11, dtype=torch.float64)
    with torch.no_grad():
        expected = reverse_axes(ours(reverse_axes(image)))
        torch.testing.assert_close(theirs(image), expected)
        assert (ours(image) - expected).abs().mean() > 0.1 * expected.std()


def test_reversing_the_axes_twice_changes_nothing() -> None:
    volume = torch.randn(2, 3, 4, 5, 6)
    assert reverse_axes(volume).shape == (2, 3, 6, 5, 4)
    assert reverse_axes(volume)[1, 2, 5, 3, 1] == volume[1, 2, 1, 3, 5]
    assert torch.equal(reverse_axes(reverse_axes(volume)), volume)


def test_a_batch_is_its_images_one_by_one() -> None:
    net, images = network(GROUPED), torch.randn(3, 1, 9, 10, 11, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(images), torch.cat([net(image[None]) for image in images]))


def test_sampling_a_few_offsets_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = network(GROUPED), torch.randn(1, 1, 9, 10, 11, dtype=torch.float64)
    with torch.no_grad():
        whole = net(image)
        monkeypatch.setattr("pddnet.features.obelisk._SAMPLES_IN_FLIGHT", 1)
        calls: list[None] = []
        torch.testing.assert_close(net(image, lambda: calls.append(None)), whole)
    assert len(calls) == GROUPED.offsets


def test_samples_that_are_computed_again_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = network(GROUPED), torch.randn(1, 1, 9, 10, 11, dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(net(image).square().sum(), list(net.parameters())))

    kept = gradients()
    monkeypatch.setattr("pddnet.features.obelisk._SAMPLES_IN_FLIGHT", 1)
    for again, expected in zip(gradients(), kept, strict=True):
        torch.testing.assert_close(again, expected)


def test_eval_mode_is_deterministic_and_leaves_the_statistics_alone() -> None:
    net, image = network(UNGROUPED), torch.randn(1, 1, 9, 10, 11, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(net(image), net(image))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_gradients_reach_the_image_and_every_parameter() -> None:
    net = network(UNGROUPED)
    image = torch.randn(1, 1, 6, 7, 8, dtype=torch.float64).requires_grad_()
    net(image).square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_offsets_have_the_gradient_of_the_values() -> None:
    net, image = network(GROUPED), torch.randn(1, 1, 6, 7, 8, dtype=torch.float64)

    def with_offsets(offsets: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(net, {"offsets": offsets}, (image,))

    assert torch.autograd.gradcheck(with_offsets, (net.offsets.detach().requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize(
    "config",
    [
        ObeliskConfig(channels=24, offsets=48, hidden=96, groups=1, axis_order="xyz"),
        ObeliskConfig(channels=24, offsets=48, hidden=48, groups=4, axis_order="xyz"),
        ObeliskConfig(channels=16, offsets=64, hidden=64, groups=2, axis_order="xyz"),
    ],
    ids=["published mind2", "published v01", "another"],
)
def test_the_sizes_are_read_off_the_weights(config: ObeliskConfig) -> None:
    with torch.device("meta"):
        state = Obelisk(config).state_dict()
    assert infer_config(state) == config


def test_the_published_shape_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        net = Obelisk(ObeliskConfig(channels=24, offsets=48, hidden=96))
    assert sum(parameter.numel() for parameter in net.parameters()) == 270_772


def changed(name: str, shape: tuple[int, ...] | None) -> dict[str, torch.Tensor]:
    state = dict(Obelisk(GROUPED).state_dict())
    if shape is None:
        del state[name]
    else:
        state[name] = torch.zeros(shape)
    return state


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("layer2.weight", None, "no tensor 'layer2.weight'"),
        ("offsets", None, "no tensor 'offsets'"),
        ("alpha", (6,), "hold alpha"),
        ("layer2.weight", (8, 8, 5, 5, 5), r"layer2.weight has shape \(8, 8, 5, 5, 5\)"),
        ("offsets", (3, 6, 3), r"offsets has shape \(3, 6, 3\)"),
        ("offsets", (6,), "other dimensions"),
        ("layer1.weight", (8, 5, 1, 1, 1), "layer1.weight has shape"),
        ("layer1.weight", (8, 8, 1, 1, 1), "groups is 3"),
        ("layer1.weight", (8, 0, 1, 1, 1), "groups is 24"),
    ],
)
def test_other_weights_are_refused_by_name(name: str, shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infer_config(changed(name, shape))


def test_weights_of_no_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="no tensor 'offsets'"):
        infer_config({})
    with pytest.raises(ValueError, match="no tensor 'offsets'"):
        infer_config({"offsets": "text"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 0}, "positive whole numbers"),
        ({"hidden": 6.0}, "positive whole numbers"),
        ({"groups": 3}, "groups is 3"),
        ({"axis_order": "yxz"}, "axis_order is 'yxz'"),
    ],
)
def test_an_impossible_configuration_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObeliskConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1, 9, 9), (1, 2, 9, 9, 9), (1, 1, 2, 9, 9)])
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="image has shape"):
        feature_shape(torch.zeros(shape))


@cuda
def test_cpu_and_cuda_agree() -> None:
    net, image = network(GROUPED), torch.randn(1, 1, 12, 13, 14, dtype=torch.float64)
    with torch.no_grad():
        on_cpu = net(image)
        torch.testing.assert_close(net.cuda()(image.cuda()).cpu(), on_cpu, rtol=1e-9, atol=1e-9)
