"""FlowNet-C in 3-D: its size, its layout, its losses in closed form, gradients, training, settings."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from backend.labelled_pairs import boxes, pair_of, shifted_pair
from pddnet.baselines.flownet_c import FlowNetC, FlowNetCConfig, segmentation_loss
from pddnet.correlation import dissimilarity_volume
from pddnet.errors import InputError
from pddnet.features.obelisk import ObeliskConfig
from pddnet.learning.trainable import TrainingPair
from pddnet.network import Level
from pddnet.regularisation import expected_displacement, softmax_over_labels

FEATURES = ObeliskConfig(channels=4, offsets=6, hidden=8)
LEVEL = Level((5, 6, 7), (3, 5, 3), (0.3, 0.2, 0.4))  # unequal everywhere: a swapped axis shows
SHARPNESS = 100.0
CONFIG = FlowNetCConfig(classes=3, features=FEATURES, level=LEVEL, channels=(8, 8, 8, 8))


def weights_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Expectation(nn.Module):
    """Instead of the trained network: the expected displacement of a softmax over the labels, in reaches."""

    def forward(self, channels: torch.Tensor) -> torch.Tensor:
        """(1, labels, Kd, Kh, Kw) to (1, 3, Kd, Kh, Kw)."""
        probabilities = torch.softmax(-SHARPNESS * channels, 1)
        labels = LEVEL.labels(channels).reshape(-1, 3) / torch.tensor(LEVEL.reach)
        return torch.einsum("blzyx,lc->bczyx", probabilities, labels)


class TestSize:
    def test_the_papers_network_has_two_million_weights_in_five_convolutions(self) -> None:
        network = FlowNetC(FlowNetCConfig())
        convolutions = [layer for layer in network.regularisation if isinstance(layer, nn.Conv3d)]
        assert len(convolutions) == 5
        assert convolutions[0].in_channels == 3375
        assert [type(layer) for layer in network.regularisation].count(nn.PReLU) == 4
        assert weights_of(network.regularisation) == pytest.approx(2e6, rel=0.05)
        assert weights_of(network) == pytest.approx(2.15e6, rel=0.05)

    def test_the_displacement_covers_the_image(self) -> None:
        pair = shifted_pair()
        found = FlowNetC(CONFIG).displacement(pair.fixed_image, pair.moving_image)
        assert found.shape == (1, 3, *pair.fixed_image.shape[2:])
        assert not found.requires_grad


class TestLayout:
    def test_channels_are_the_labels_and_displacements_are_scaled_by_the_reach(self) -> None:
        pair, network = shifted_pair(), FlowNetC(CONFIG)
        network.regularisation = Expectation()  # type: ignore[assignment]
        volume = dissimilarity_volume(
            network.features(pair.fixed_image),
            network.features(pair.moving_image),
            LEVEL.points(pair.fixed_image),
            LEVEL.labels(pair.fixed_image),
            reduction="mean",
        )
        expected = expected_displacement(
            softmax_over_labels(volume, SHARPNESS), LEVEL.labels(pair.fixed_image)
        )
        found = network(pair.fixed_image, pair.moving_image)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        swapped = expected.detach().flip(-1)
        assert float((expected.detach() - swapped).abs().max()) > 0.05

    def test_evaluation_ignores_the_mode_and_leaves_it(self) -> None:
        pair, network = shifted_pair(), FlowNetC(CONFIG)
        network.losses(pair)  # moves the running means
        network.features.batch0.eval()
        first = network.displacement(pair.fixed_image, pair.moving_image)
        assert network.training
        assert not network.features.batch0.training
        torch.testing.assert_close(network.eval().displacement(pair.fixed_image, pair.moving_image), first)


class TestLosses:
    def test_without_displacement_the_label_loss_is_the_weighted_difference_of_the_labels(self) -> None:
        pair, network = shifted_pair(), FlowNetC(CONFIG)
        last = network.regularisation[-1]
        assert isinstance(last, nn.Conv3d)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        losses = network.losses(pair)
        assert pair.fixed_one_hot is not None
        assert pair.moving_one_hot is not None
        assert pair.class_weights is not None
        squares = (pair.fixed_one_hot - pair.moving_one_hot).square().mean((0, 2, 3, 4))
        torch.testing.assert_close(losses["label"], (squares * pair.class_weights).mean())
        assert float(losses["diffusion"].detach()) == 0
        unweighted = network.losses(replace(pair, class_weights=None))["label"]
        torch.testing.assert_close(unweighted, squares.mean())

    def test_a_constant_displacement_carries_the_labels_the_right_way(self) -> None:
        """Fixed boxes lie 2 voxels along z, 1 along y and -2 along x from the moving ones."""
        pair, network = shifted_pair(), FlowNetC(CONFIG)
        last = network.regularisation[-1]
        assert isinstance(last, nn.Conv3d)
        nn.init.zeros_(last.weight)
        size = torch.tensor(pair.fixed_image.shape[:1:-1])
        right = torch.tensor([-2.0, 1.0, 2.0]) * 2 / (size - 1) / torch.tensor(LEVEL.reach)
        for sign, expected in ((1.0, True), (-1.0, False)):
            last.bias = nn.Parameter(sign * right)
            assert (float(network.losses(pair)["label"].detach()) < 1e-8) is expected

    def test_the_segmentation_loss_is_the_weighted_cross_entropy(self) -> None:
        labels = torch.zeros(1, 3, 6, 6, 6)
        labels[:, 0] = 1
        labels[:, :, :3] = torch.tensor([0.0, 0.25, 0.75])[None, :, None, None, None]
        weights = torch.tensor([0.15, 1.0, 2.0])
        found = segmentation_loss(torch.zeros(1, 3, 2, 2, 2), labels, weights)
        expected = torch.tensor(3.0).log() * (0.15 * 0.5 + (0.25 * 1 + 0.75 * 2) * 0.5)
        torch.testing.assert_close(found, expected)

    def test_the_weights_of_the_terms_count(self) -> None:
        pair = shifted_pair()
        torch.manual_seed(1)
        once = FlowNetC(CONFIG)
        twice = FlowNetC(replace(CONFIG, diffusion_weight=3.0, segmentation_weight=0.5))
        twice.load_state_dict(once.state_dict())
        a, b = once.losses(pair), twice.losses(pair)
        assert float(a["diffusion"].detach()) > 0
        torch.testing.assert_close(b["diffusion"], 2 * a["diffusion"])
        torch.testing.assert_close(b["segmentation"], 0.5 * a["segmentation"])


class TestTraining:
    def test_every_parameter_has_a_gradient(self) -> None:
        network = FlowNetC(CONFIG)
        torch.stack(list(network.losses(shifted_pair()).values())).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name

    def test_a_few_steps_lower_the_loss(self) -> None:
        pair, network = shifted_pair(), FlowNetC(CONFIG)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        course = []
        for _ in range(25):
            losses = network.losses(pair)
            total = torch.stack(list(losses.values())).sum()
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            course.append({name: float(loss.detach()) for name, loss in losses.items()})
        assert course[-1]["label"] < 0.5 * course[0]["label"]
        assert course[-1]["segmentation"] < 0.7 * course[0]["segmentation"]

    def test_gradients_are_right_in_double_precision(self) -> None:
        pair = shifted_pair(torch.float64)
        network = FlowNetC(CONFIG).double()

        def total(fixed: torch.Tensor, moving: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            there = replace(pair, fixed_image=fixed, moving_image=moving)
            return torch.stack(list(network.losses(there).values())).sum()

        images = [image.requires_grad_() for image in (pair.fixed_image, pair.moving_image)]
        assert torch.autograd.gradcheck(total, (*images, *network.parameters()), fast_mode=True)


class TestSettings:
    def test_a_network_is_made_anew_from_its_configuration(self) -> None:
        network = FlowNetC(CONFIG).eval()
        again = FlowNetC.from_config(json.loads(json.dumps(network.config()))).eval()
        assert again.settings == CONFIG
        again.load_state_dict(network.state_dict())
        pair = shifted_pair()
        images = (pair.fixed_image, pair.moving_image)
        torch.testing.assert_close(again.displacement(*images), network.displacement(*images))

    def test_settings_left_out_take_their_defaults_and_unknown_ones_are_refused(self) -> None:
        made = FlowNetC.from_config({"classes": 3, "level": {**vars(LEVEL)}, "channels": [4, 4, 4, 4]})
        assert made.settings.diffusion_weight == 1.5
        with pytest.raises(InputError, match="flownet-c has the unknown entry class"):
            FlowNetC.from_config({"class": 3})
        with pytest.raises(InputError, match="classes is 1"):
            FlowNetC.from_config({"classes": 1})
        with pytest.raises(InputError, match="diffusion_weight is -1"):
            FlowNetC.from_config({"diffusion_weight": -1.0})

    def test_pairs_it_cannot_learn_from_are_refused(self) -> None:
        pair, network = shifted_pair(), FlowNetC(CONFIG)
        with pytest.raises(InputError, match="the moving scan has no labels; flownet-c learns"):
            network.losses(TrainingPair(pair.fixed_image, pair.moving_image, pair.fixed_one_hot))
        with pytest.raises(InputError, match="set classes = 4"):
            network.losses(pair_of(boxes(), boxes(), classes=4))
        with pytest.raises(InputError, match="class_weights have shape"):
            network.losses(replace(pair, class_weights=torch.ones(2)))
        with pytest.raises(InputError, match="one grid and the same classes"):
            network.losses(replace(pair, moving_image=pair.moving_image[:, :, 1:]))
