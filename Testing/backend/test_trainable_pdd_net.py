"""pdd-net as it is trained: its losses, the paper's ablations, and what it finds on the training grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pddnet.errors import InputError
from pddnet.learning import checkpointing, registry
from pddnet.learning.pdd_net import PddNetSettings, TrainablePddNet
from pddnet.learning.trainable import TrainingPair
from pddnet.losses import (
    diffusion,
    mind_loss,
    non_local_label_loss,
    one_hot,
    soft_dice_loss,
    warp_holding_border,
    warped_label_loss,
)
from pddnet.network import compose_normalised, infer_with_warps, warp_normalised
from pddnet.regularisation import upsample_displacement

SMALL: dict[str, Any] = {
    "control_points": [4, 3, 5],
    "labels": [3, 5, 3],
    "reach": [0.3, 0.4, 0.2],
    "obelisk": {"channels": 3, "offsets": 4, "hidden": 4},
}
SHAPE = (12, 14, 13)


def model(**settings: Any) -> TrainablePddNet:
    made = registry.create("pdd-net", {**SMALL, **settings})
    assert isinstance(made, TrainablePddNet)
    return made


def pair(dtype: torch.dtype = torch.float32, labelled: bool = True) -> TrainingPair:
    """Two smooth random images and labels in blocks."""
    images = [
        nn.functional.interpolate(torch.rand(1, 1, 5, 5, 5, dtype=dtype), SHAPE, mode="trilinear")
        for _ in range(2)
    ]
    if not labelled:
        return TrainingPair(*images)
    hot = [one_hot((image[0, 0] * 2.99).long(), 3, dtype) for image in images]
    return TrainingPair(*images, *hot, torch.tensor([0.15, 1.0, 2.0], dtype=dtype))


def test_the_settings_count_along_x_y_z_and_the_search_along_z_y_x() -> None:
    (level,) = model().settings.levels
    assert level.grid_shape == (5, 3, 4)
    assert level.label_shape == (3, 5, 3)
    assert level.reach == (0.3, 0.4, 0.2)


def test_the_defaults_are_the_papers() -> None:
    settings = PddNetSettings()
    assert settings.control_points == (32, 32, 32)
    assert settings.labels == (15, 15, 15)
    assert settings.reach == (0.4, 0.4, 0.4)
    assert (settings.diffusion_weight, settings.label_loss, settings.mean_field) == (1.5, "non-local", True)
    parameters = sum(p.numel() for p in TrainablePddNet(settings).parameters())
    assert 120_000 < parameters < 270_000


def test_the_losses_are_the_papers_terms_by_hand() -> None:
    net, data = model(label_weight=3.0, diffusion_weight=0.7).double(), pair(torch.float64)
    torch.manual_seed(1)
    found = net.losses(data)
    net.train()
    level = net.settings.levels[0]
    output = net.network(data.fixed_image, data.moving_image, level)
    points = level.points(data.fixed_image)
    assert data.moving_one_hot is not None
    assert data.fixed_one_hot is not None
    assert data.class_weights is not None
    label = non_local_label_loss(
        data.moving_one_hot,
        data.fixed_one_hot,
        output.probabilities,
        points,
        output.labels,
        data.class_weights,
    )
    assert found.keys() == {"label", "diffusion"}
    torch.testing.assert_close(found["label"], 3 * label)
    torch.testing.assert_close(found["diffusion"], 0.7 * diffusion(output.expected_displacement))


@pytest.mark.parametrize(
    ("settings", "term"),
    [({"label_loss": "spatial-transformer"}, "label"), ({"label_loss": "soft-dice"}, "dice")],
)
def test_other_label_losses_warp_by_the_expected_displacement(settings: dict[str, str], term: str) -> None:
    net, data = model(**settings).double(), pair(torch.float64)
    found = net.losses(data)[term]
    output = net.network(data.fixed_image, data.moving_image, net.settings.levels[0])
    displacement = upsample_displacement(output.expected_displacement, SHAPE)
    assert data.moving_one_hot is not None
    assert data.fixed_one_hot is not None
    assert data.class_weights is not None
    if term == "dice":
        expected = soft_dice_loss(warp_holding_border(data.moving_one_hot, displacement), data.fixed_one_hot)
    else:
        expected = warped_label_loss(
            data.moving_one_hot, data.fixed_one_hot, displacement, data.class_weights
        )
    torch.testing.assert_close(found, expected)
    found.backward()  # type: ignore[no-untyped-call]
    assert net.network.features.offsets.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_without_labels_the_descriptors_supervise() -> None:
    net, data = model(supervision="mind").double(), pair(torch.float64, labelled=False)
    found = net.losses(data)
    assert not net.needs_labels
    output = net.network(data.fixed_image, data.moving_image, net.settings.levels[0])
    displacement = upsample_displacement(output.expected_displacement, SHAPE)
    torch.testing.assert_close(found["mind"], mind_loss(data.fixed_image, data.moving_image, displacement))
    with pytest.raises(InputError, match=r'has no labels and the loss needs them; .* supervision = "mind"'):
        model().losses(pair(labelled=False))


def test_hand_made_features_leave_the_six_scalars_to_train() -> None:
    net = model(features="mind-ssc")
    assert sum(p.numel() for p in net.parameters()) == 6
    sum(net.losses(pair()).values()).backward()  # type: ignore[union-attr]
    assert net.network.regularisation.sharpness.grad is not None
    assert net.network.regularisation.sharpness.grad != 0


def test_without_the_mean_field_a_control_point_does_not_feel_its_neighbours() -> None:
    def influence(mean_field: bool) -> torch.Tensor:
        """How the displacements depend on the costs of one control point."""
        regularisation = model(mean_field=mean_field).network.regularisation
        cost = torch.rand(5, 3, 4, 3, 3, 3)
        changed = cost.clone()
        changed[0, 0, 0] = torch.rand(3, 3, 3)
        with torch.no_grad():
            difference = regularisation(changed) - regularisation(cost)
        return difference.flatten(3).abs().amax(3)

    alone, together = influence(False), influence(True)
    assert alone[0, 0, 0] > 1e-4
    alone[0, 0, 0] = 0
    assert alone.max() < 1e-7
    assert together[1, 1, 1] > 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mean_field": False},
        {"features": "mind-ssc"},
        {"label_loss": "spatial-transformer"},
        {"label_loss": "soft-dice"},
        {"supervision": "mind"},
    ],
)
def test_every_variant_has_the_gradient_of_its_loss(settings: dict[str, Any]) -> None:
    """In double precision, along a random direction of all parameters at once."""
    net, data = model(**settings).double(), pair(torch.float64)
    parameters = [p for p in net.parameters() if p.requires_grad]

    def total() -> torch.Tensor:
        return torch.stack(list(net.losses(data).values())).sum()

    gradients = torch.autograd.grad(total(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=sign * step)
            values.append(float(total()))
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=sign * step)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert abs(expected) > 1e-7


@pytest.mark.parametrize("settings", [{}, {"mean_field": False}, {"features": "mind-ssc"}])
def test_the_displacement_is_the_expectation_in_evaluation_whatever_the_mode(
    settings: dict[str, Any],
) -> None:
    net, data = model(**settings), pair()
    net.train()
    found = net.displacement(data.fixed_image, data.moving_image)
    assert net.training
    assert not found.requires_grad
    net.eval()
    with torch.no_grad():
        output = net.network(data.fixed_image, data.moving_image, net.settings.levels[0])
    expected = upsample_displacement(output.expected_displacement, SHAPE)
    assert found.shape == (1, 3, *SHAPE)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_instance_optimisation_is_that_of_the_published_inference() -> None:
    net, data = model().eval(), pair()
    found = net.displacement(data.fixed_image, data.moving_image, instance_optimisation=True)
    from pddnet.instance_optimisation import STEADY_FIT

    expected = infer_with_warps(
        net.network, data.fixed_image, data.moving_image, net.settings.levels, optimisation=STEADY_FIT
    ).displacement
    torch.testing.assert_close(found, expected)
    plain = net.displacement(data.fixed_image, data.moving_image)
    assert (found - plain).abs().max() > 1e-5
    assert compose_normalised(found, torch.zeros_like(found)).shape == found.shape


def test_large_images_are_seen_twice_with_the_same_gradients_and_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trained(limit: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        monkeypatch.setattr(checkpointing, "_KEPT_VOXELS", limit)
        torch.manual_seed(2)
        net, data = model().double(), pair(torch.float64)
        sum(net.losses(data).values()).backward()  # type: ignore[union-attr]
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        return gradients, {name: b.clone() for name, b in net.named_buffers()}

    kept, counted = trained(10**9)
    again, counted_again = trained(0)
    assert len(kept) == len(again) > 10
    for one, other in zip(kept, again, strict=True):
        torch.testing.assert_close(one, other)
    for name, buffer in counted.items():
        torch.testing.assert_close(counted_again[name], buffer)
    assert counted["network.features.batch1.num_batches_tracked"] == 2  # the fixed and the moving image


def test_further_searches_see_the_warped_moving_image_as_in_the_published_inference() -> None:
    net, data = model(searches=[1.0, 0.5, 0.25], features="mind-ssc").eval(), pair()
    nn.init.constant_(net.network.regularisation.sharpness, 50.0)
    assert [level.reach[1] for level in net.settings.levels] == pytest.approx([0.4, 0.2, 0.1])
    found = net.displacement(data.fixed_image, data.moving_image)
    expected = infer_with_warps(
        net.network, data.fixed_image, data.moving_image, net.settings.levels, optimisation=None
    ).displacement
    torch.testing.assert_close(found, expected)
    once = infer_with_warps(
        net.network, data.fixed_image, data.moving_image, net.settings.levels[:1], optimisation=None
    ).displacement
    assert (found - once).abs().max() > 0.02


def test_a_step_trains_one_of_the_searches_as_it_is_met_at_inference() -> None:
    net, data = model(searches=[1.0, 0.5], features="mind-ssc"), pair()
    nn.init.constant_(net.network.regularisation.sharpness, 50.0)
    assert data.moving_one_hot is not None
    found = [net.losses(data)["label"].item() for _ in range(12)]
    first, second = net.settings.levels
    alone = net._losses_of(data, first)["label"].item()
    shift = net._found(data.fixed_image, data.moving_image, [first], fit=False).detach()
    warped = replace(
        data,
        moving_image=warp_normalised(data.moving_image, shift),
        moving_one_hot=warp_holding_border(data.moving_one_hot, shift),
    )
    then = net._losses_of(warped, second)["label"].item()
    assert abs(then - alone) > 0.01 * alone
    near = [[value == pytest.approx(wanted, rel=1e-4) for value in found] for wanted in (alone, then)]
    assert all(first or second for first, second in zip(*near, strict=True))
    assert any(near[0])
    assert any(near[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": [3, 4, 3]}, "an odd number of 3 or more labels"),
        ({"control_points": [1, 4, 4]}, "2 or more control points"),
        ({"reach": [0.0, 0.1, 0.1]}, "above 0 and up to 2"),
        ({"diffusion_weight": -1.0}, "none may be below 0"),
        ({"searches": []}, "at least one factor"),
        ({"searches": [1.0, 1.5]}, "at least one factor in"),
        ({"features": "sift"}, "one of obelisk, mind-ssc"),
        ({"colour": 1}, "unknown entry colour"),
        ({"obelisk": {"groups": 3}}, "groups is 3"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(**wrong)


def test_the_configuration_makes_the_same_model_anew() -> None:
    net = model(label_loss="soft-dice", mean_field=False)
    again = TrainablePddNet.from_config(net.config())
    assert again.settings == net.settings
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in net.state_dict().items()
    }


def test_mixed_precision_computes_the_features_in_half_and_the_losses_in_single() -> None:
    net, data = model(), pair()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net.losses(data)
    assert {term.dtype for term in mixed.values()} == {torch.float32}
    exact = net.losses(data)
    assert mixed["label"].item() == pytest.approx(exact["label"].item(), rel=0.1)
    assert mixed["label"].item() != exact["label"].item()
