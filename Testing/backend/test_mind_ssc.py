"""MIND-SSC against loops over voxels, and what makes it a contrast-independent descriptor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.oracles import lattice as oracle
from pddnet.errors import InputError
from pddnet.features.mind_ssc import mind_ssc

SHAPE = (6, 4, 8)


def image(shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(1, 1, *shape, dtype=dtype)


def sorted_channels(channels: object) -> np.ndarray:
    """The twelve channels in an order of their own, as descriptors are compared channel by channel."""
    stacked = np.stack([np.asarray(channel) for channel in channels])  # type: ignore[attr-defined]
    return stacked[np.argsort(stacked.reshape(len(stacked), -1).sum(1))]


@pytest.mark.parametrize(
    ("radius", "dilation", "stride"), [(1, 2, 1), (0, 1, 1), (2, 1, 1), (1, 2, 2), (0, 2, 2), (1, 4, 2)]
)
def test_every_channel_is_that_of_a_loop_over_voxels_and_patches(
    radius: int, dilation: int, stride: int
) -> None:
    scan = image()
    found = mind_ssc(scan, radius=radius, dilation=dilation, stride=stride)[0]
    expected = oracle.mind_ssc(scan[0, 0].numpy(), radius, dilation, stride)
    assert found.shape == (12, *(n // stride for n in SHAPE))
    np.testing.assert_allclose(sorted_channels(found), sorted_channels(expected), atol=1e-12)
    other = mind_ssc(scan, radius=radius + 1, dilation=dilation, stride=stride)[0]
    assert np.abs(sorted_channels(other) - sorted_channels(expected)).max() > 1e-2


def test_the_channels_keep_their_meaning_when_the_image_moves() -> None:
    wide = image((12, 13, 14))
    moved = torch.roll(wide, (1, -2, 1), (2, 3, 4))
    still, shifted = mind_ssc(wide, dilation=1), mind_ssc(moved, dilation=1)
    torch.testing.assert_close(
        shifted[:, :, 6:9, 3:6, 6:9], still[:, :, 5:8, 5:8, 5:8]
    )  # far from the border
    assert (shifted - still).abs().max() > 0.1


def test_a_linear_change_of_intensity_changes_nothing() -> None:
    scan = image()
    torch.testing.assert_close(mind_ssc(-37.5 * scan + 900), mind_ssc(scan), atol=1e-9, rtol=1e-7)
    assert (mind_ssc(scan.exp()) - mind_ssc(scan)).abs().max() > 0.05


def test_values_lie_above_zero_and_the_best_pair_of_each_voxel_has_one() -> None:
    channels = mind_ssc(image((9, 7, 8), torch.float32))
    assert channels.min() > 0
    torch.testing.assert_close(channels.amax(1), torch.ones_like(channels[:, 0]))
    assert channels.amin(1).max() < 1


def test_a_constant_image_has_equal_channels_and_no_nan() -> None:
    assert torch.equal(mind_ssc(torch.full((1, 1, 5, 6, 7), 3.0)), torch.ones(1, 12, 5, 6, 7))


def test_images_of_a_batch_do_not_know_of_each_other() -> None:
    first, second = image(), 1000 * image()
    both = mind_ssc(torch.cat((first, second)))
    torch.testing.assert_close(both, torch.cat((mind_ssc(first), mind_ssc(second))))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_is_that_of_the_values(stride: int) -> None:
    scan = image((4, 2, 4)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: mind_ssc(x, radius=0, dilation=stride, stride=stride), (scan,), fast_mode=True
    )


def test_the_values_do_not_depend_on_whether_a_gradient_is_wanted() -> None:
    scan = image()
    torch.testing.assert_close(mind_ssc(scan.clone().requires_grad_()).detach(), mind_ssc(scan))


def test_the_image_is_not_changed() -> None:
    scan = image()
    before = scan.clone()
    mind_ssc(scan)
    assert torch.equal(scan, before)


@pytest.mark.parametrize("shape", [(6, 6, 6), (1, 6, 6, 6), (1, 2, 6, 6, 6)])
def test_another_shape_is_refused_and_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"image has shape .* \(B, 1, D, H, W\)"):
        mind_ssc(torch.zeros(shape))


@pytest.mark.parametrize(
    "settings",
    [{"stride": 3}, {"stride": 0}, {"radius": -1}, {"dilation": 0}, {"stride": 2, "dilation": 3}],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="the stride is 1 or 2 and divides the dilation"):
        mind_ssc(image(), **settings)
