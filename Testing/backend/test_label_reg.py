"""Label-Reg: its displacement in closed form, losses beside naive ones, the draw of labels, training, settings."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from backend.labelled_pairs import SHAPE, boxes, pair_of, shifted_pair
from pddnet.baselines.label_reg import LabelReg, LabelRegConfig
from pddnet.baselines.multi_scale_dice import gaussian_filtered, multi_scale_dice, soft_dice
from pddnet.baselines.residual_blocks import additive_upsampling
from pddnet.baselines.smoothness import bending_energy, gradient_energy
from pddnet.errors import InputError
from pddnet.learning.trainable import TrainingPair

CONFIG = LabelRegConfig(channels=4, global_channels=4, levels=2, scales=(0.0, 1.0, 2.0, 4.0), labels="all")


def still(network: LabelReg) -> None:
    """Let neither network move anything."""
    for layer in (network.global_network.affine, *network.local_network.summands):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def voxels_of(shape: tuple[int, ...]) -> torch.Tensor:
    """Indices (1, 3, D, H, W) as x, y, z, float64."""
    lines = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1])[None]


class TestDisplacement:
    def test_networks_that_say_nothing_leave_everything_where_it_is(self) -> None:
        pair, network = shifted_pair(), LabelReg(CONFIG)
        still(network)
        found = network.displacement(pair.fixed_image, pair.moving_image)
        assert found.shape == (1, 3, *SHAPE)
        assert float(found.abs().max()) < 1e-6

    def test_the_affine_map_follows_the_local_displacement(self) -> None:
        pair, network = shifted_pair(), LabelReg(CONFIG)
        still(network)
        difference = torch.tensor([[0.1, 0.05, 0, 0.2], [0, -0.1, 0.1, -0.1], [0.05, 0, 0.2, 0.05]])
        local = torch.tensor([1.0, -2.0, 3.0])  # voxels
        with torch.no_grad():
            network.global_network.affine.bias += difference.flatten() * 64  # the mean over 4^3 cells
            network.local_network.summands[0].bias += 0.25 * local
            network.local_network.summands[2].bias += 0.75 * local
        found = network.displacement(pair.fixed_image, pair.moving_image)
        size = torch.tensor(SHAPE[::-1])
        rest = (voxels_of(SHAPE)[0].movedim(0, -1) * 2 / (size - 1) - 1).float()  # (D, H, W, 3)
        affine = torch.eye(3, 4) + difference
        moved = (rest + local * 2 / (size - 1)) @ affine[:, :3].T + affine[:, 3]
        torch.testing.assert_close(found[0].movedim(0, -1), moved - rest, atol=1e-5, rtol=0)
        added = rest @ affine[:, :3].T + affine[:, 3] + local * 2 / (size - 1)
        assert float((added - moved).abs().max()) > 0.01

    def test_the_local_network_sees_the_moving_image_where_the_global_one_put_it(self) -> None:
        pair, network = shifted_pair(), LabelReg(CONFIG)
        still(network)
        seen: list[torch.Tensor] = []
        network.local_network.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
        with torch.no_grad():
            network.global_network.affine.bias[3] += 64 * 2 * 2 / (SHAPE[2] - 1)  # two voxels along x
        network.displacement(pair.fixed_image, pair.moving_image)
        torch.testing.assert_close(
            seen[0][0, 1, ..., :-2], pair.moving_image[0, 0, ..., 2:], atol=1e-4, rtol=0
        )
        torch.testing.assert_close(seen[0][:, :1], pair.fixed_image)

    @pytest.mark.parametrize("shape", [(17, 14, 19), (9, 16, 12)])
    def test_odd_sizes_are_welcome(self, shape: tuple[int, int, int]) -> None:
        images = torch.rand(2, 1, 1, *shape)
        found = LabelReg(CONFIG).displacement(images[0], images[1])
        assert found.shape == (1, 3, *shape)

    def test_too_small_or_different_images_are_refused(self) -> None:
        network = LabelReg(CONFIG)
        small = torch.rand(1, 1, 4, 4, 4)
        with pytest.raises(InputError, match="one voxel left after 2 halvings"):
            network.displacement(small, small)
        with pytest.raises(InputError, match="images on one grid"):
            network.displacement(torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 9))

    def test_additive_upsampling_adds_the_halves_of_the_channels(self) -> None:
        values = torch.tensor([1.0, 2.0, 10.0, 20.0])[None, :, None, None, None].expand(1, 4, 2, 3, 2)
        found = additive_upsampling(values, (4, 5, 3))
        torch.testing.assert_close(
            found, torch.tensor([11.0, 22.0])[None, :, None, None, None].expand(1, 2, 4, 5, 3)
        )


class TestMultiScaleDice:
    @pytest.mark.parametrize("sigma", [0.0, 0.7, 2.0, 5.0])
    def test_the_filter_is_scipys(self, sigma: float) -> None:
        values = torch.rand(1, 2, 7, 9, 12, dtype=torch.float64)
        found = gaussian_filtered(values, sigma)
        expected = values.numpy()
        if sigma:
            tail = int(3 * sigma)
            kernel = np.exp(-0.5 * (np.arange(-tail, tail + 1) / sigma) ** 2)
            for axis in (2, 3, 4):
                expected = ndimage.correlate1d(expected, kernel / kernel.sum(), axis, mode="constant")
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_dice_in_closed_form(self) -> None:
        a, b = torch.zeros(2, 1, 3, 4, 4, 4)
        a[0, 0, :2], b[0, 0, 1:3] = 1, 1  # half of each in the other
        a[0, 1, 0, 0, 0], b[0, 1] = 1, 0.5
        found = soft_dice(a, b)
        torch.testing.assert_close(found, torch.tensor([0.5, 2 * 0.5 / (1 + 32), 0.0]))

    def test_the_scales_are_averaged_and_wide_ones_feel_labels_that_do_not_touch(self) -> None:
        a, b = torch.zeros(2, 1, 1, 12, 12, 12, dtype=torch.float64)
        a[..., 2:5, 4:8, 4:8], b[..., 7:10, 4:8, 4:8] = 1, 1
        by_scale = [multi_scale_dice(a, b, [s]) for s in (0.0, 2.0)]
        assert float(by_scale[0]) == 0
        assert float(by_scale[1]) > 0.02
        torch.testing.assert_close(multi_scale_dice(a, b, [0.0, 2.0]), sum(by_scale) / 2)


class TestSmoothness:
    def test_bending_energy_in_closed_form(self) -> None:
        x, y, z = voxels_of((5, 6, 7))[0]
        field = torch.stack((3 * x**2, 2 * x * z, y * z + y**2))[None]
        # u_x: xx = 6; u_y: xz = 2; u_z: yz = 1, yy = 2
        assert float(bending_energy(field)) == pytest.approx((36 + 2 * 4 + 2 * 1 + 4) / 3)

    def test_gradient_energy_in_closed_form(self) -> None:
        x, y, z = voxels_of((5, 6, 7))[0]
        field = torch.stack((2 * x - y, 3 * z, 0.5 * y))[None]
        assert float(gradient_energy(field)) == pytest.approx((4 + 1 + 9 + 0.25) / 3)

    def test_affine_maps_do_not_bend(self) -> None:
        index = voxels_of((5, 6, 7))
        field = torch.einsum("ij,bjzyx->bizyx", torch.rand(3, 3, dtype=torch.float64), index) + 4
        assert float(bending_energy(field)) < 1e-20
        assert float(gradient_energy(field)) > 0.01

    @pytest.mark.parametrize("energy", [bending_energy, gradient_energy])
    def test_gradients_are_right(self, energy: object) -> None:
        field = torch.rand(1, 3, 4, 5, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(energy, (field,))


class TestLosses:
    def test_the_right_affine_shift_brings_the_labels_together(self) -> None:
        """Fixed boxes lie 2 voxels along z, 1 along y and -2 along x from the moving ones."""
        pair, network = shifted_pair(), LabelReg(replace(CONFIG, scales=(0.0,)))
        still(network)
        offset = torch.tensor([-2.0, 1.0, 2.0]) * 2 / (torch.tensor(SHAPE[::-1]) - 1)
        for sign, expected in ((1.0, 0.0), (-1.0, 1.0)):
            with torch.no_grad():
                network.global_network.affine.bias[3::4] = sign * 64 * offset
            losses = network.losses(pair)
            assert float(losses["label"].detach()) == pytest.approx(expected, abs=0.15)
            assert float(losses["smoothness"].detach()) < 1e-8

    def test_the_smoothness_is_that_of_the_displacement_in_voxels(self) -> None:
        pair, network = (
            shifted_pair(),
            LabelReg(replace(CONFIG, smoothness="gradient", smoothness_weight=3.0)),
        )
        still(network)
        with torch.no_grad():
            network.global_network.affine.bias[0] = 64 * 0.1  # stretched along x by a tenth
        assert float(network.losses(pair)["smoothness"].detach()) == pytest.approx(3 * 0.01 / 3, rel=1e-3)

    def test_one_label_is_drawn_at_a_time_from_those_that_both_have(self) -> None:
        fixed, moving = boxes(), boxes()
        fixed[0, 0, :4], moving[moving == 2] = 3, 0  # 3 in the fixed scan only, 2 too
        moving[0, 0, :4] = 4
        fixed[15, 0, :4], moving[15, 0, :4] = 5, 5
        pair, network = pair_of(fixed, moving, classes=6), LabelReg(replace(CONFIG, labels="one"))
        drawn: set[int] = set()
        for _ in range(30):
            chosen = network.chosen(pair.fixed_one_hot, pair.moving_one_hot)  # type: ignore[arg-type]
            assert len(chosen) == 1
            drawn.add(int(chosen))
        assert drawn == {1, 5}
        every = LabelReg(CONFIG).chosen(pair.fixed_one_hot, pair.moving_one_hot)  # type: ignore[arg-type]
        assert every.tolist() == [1, 5]

    def test_the_draw_can_be_repeated(self) -> None:
        pair, network = shifted_pair(), LabelReg(replace(CONFIG, labels="one")).eval()
        course = []
        for _ in range(2):
            torch.manual_seed(7)
            course.append([float(network.losses(pair)["label"].detach()) for _ in range(6)])
        assert course[0] == course[1]
        assert len(set(course[0])) == 2

    def test_pairs_it_cannot_learn_from_are_refused(self) -> None:
        pair, network = shifted_pair(), LabelReg(CONFIG)
        with pytest.raises(InputError, match="the fixed scan has no labels; label-reg learns"):
            network.losses(TrainingPair(pair.fixed_image, pair.moving_image))
        fixed, moving = boxes(), boxes()
        fixed[fixed == 1], moving[moving == 2] = 0, 0
        with pytest.raises(InputError, match="share no label"):
            network.losses(pair_of(fixed, moving))


class TestTraining:
    def test_every_parameter_has_a_gradient(self) -> None:
        network = LabelReg(CONFIG)
        torch.stack(list(network.losses(shifted_pair()).values())).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name

    def test_a_few_steps_lower_the_loss(self) -> None:
        pair, network = shifted_pair(), LabelReg(CONFIG)
        optimiser = torch.optim.Adam(network.parameters(), lr=5e-4)
        course = []
        for _ in range(30):
            losses = network.losses(pair)
            total = torch.stack(list(losses.values())).sum()
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            course.append(float(total.detach()))
        assert course[-1] < course[0] - 0.08

    def test_gradients_are_right_in_double_precision(self) -> None:
        corner = (slice(2, 10), slice(7, 14), slice(4, 12))  # parts of both labels
        labels = [boxes(shift=shift)[corner] for shift in ((0, 0, 0), (1, 0, -1))]
        pair = pair_of(labels[0], labels[1], dtype=torch.float64)
        network = LabelReg(replace(CONFIG, channels=2, global_channels=2)).double()
        with torch.no_grad():  # away from voxel centres, where linear interpolation has no derivative
            network.local_network.summands[0].bias += 0.3
            network.global_network.affine.bias[3::4] += 64 * 0.05

        def total(fixed: torch.Tensor, moving: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            there = replace(pair, fixed_image=fixed, moving_image=moving)
            return torch.stack(list(network.losses(there).values())).sum()

        images = [image.requires_grad_() for image in (pair.fixed_image, pair.moving_image)]
        assert torch.autograd.gradcheck(total, (*images, *network.parameters()), fast_mode=True)


class TestSettings:
    def test_a_network_is_made_anew_from_its_configuration(self) -> None:
        network = LabelReg(CONFIG)
        again = LabelReg.from_config(json.loads(json.dumps(network.config())))
        assert again.settings == CONFIG
        again.load_state_dict(network.state_dict())
        pair = shifted_pair()
        images = (pair.fixed_image, pair.moving_image)
        torch.testing.assert_close(again.displacement(*images), network.displacement(*images))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"levels": 0}, "levels are"),
            ({"scales": []}, "scales are"),
            ({"scales": [-1.0]}, "scales are"),
            ({"labels": "some"}, "one of one, all"),
            ({"smoothness_weight": -1.0}, "smoothness_weight is"),
            ({"channel": 3}, "label-reg has the unknown entry channel"),
        ],
    )
    def test_settings_that_cannot_be_used_are_refused(
        self, settings: dict[str, object], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            LabelReg.from_config(settings)

    def test_the_defaults_are_the_papers(self) -> None:
        settings = LabelReg.from_config({}).settings
        assert settings.scales == (0, 1, 2, 4, 8, 16, 32)
        assert (settings.labels, settings.smoothness, settings.smoothness_weight) == ("one", "bending", 0.5)
