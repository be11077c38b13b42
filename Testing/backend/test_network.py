"""The network put together, and the inference with warps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.oracles import layers
from pddnet.correlation import dissimilarity_volume
from pddnet.features.obelisk import ObeliskConfig, reverse_axes
from pddnet.network import (
    Level,
    PddNet,
    compose_normalised,
    infer_with_warps,
    warp_normalised,
)
from pddnet.regularisation import (
    PUBLISHED_WEIGHTS,
    displacement_covariance_diagonal,
    entropy,
    expected_displacement,
    regularise,
    upsample_displacement,
)

SMALL = ObeliskConfig(channels=6, offsets=4, hidden=8, groups=1)
LEVEL = Level((4, 5, 3), (5, 3, 4), (0.2, 0.3, 0.4))


def network(axis_order: str = "zyx") -> PddNet:
    torch.manual_seed(7)
    config = ObeliskConfig(channels=6, offsets=4, hidden=8, groups=1, axis_order=axis_order)  # type: ignore[arg-type]
    return PddNet(config, PUBLISHED_WEIGHTS).double().eval()


def smooth_image(shape: tuple[int, int, int], shift: float = 0.0) -> torch.Tensor:
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape), indexing="ij")
    x = x + shift
    return (torch.sin(4 * x + y) + torch.cos(5 * y * z + x) + torch.sin(3 * z - 2 * x * y))[None, None]


def smooth_displacement(shape: tuple[int, int, int], size: float) -> torch.Tensor:
    coarse = size * torch.randn(3, 3, 3, 3, dtype=torch.float64)
    coarse[0] = coarse[-1] = coarse[:, 0] = coarse[:, -1] = coarse[:, :, 0] = coarse[:, :, -1] = 0
    return upsample_displacement(coarse, shape)


def test_forward_is_the_layers_one_after_the_other() -> None:
    net, fixed, moving = network(), smooth_image((18, 15, 21)), smooth_image((18, 15, 21), 0.1)
    with torch.no_grad():
        output = net(fixed, moving, LEVEL, keep_dissimilarity=True)
        f, m = net.features(fixed), net.features(moving)
        dissimilarity = dissimilarity_volume(f, m, LEVEL.points(f), LEVEL.labels(f))
        probabilities = regularise(dissimilarity, net.regularisation.weights)
    assert output.dissimilarity is not None
    torch.testing.assert_close(output.dissimilarity, dissimilarity)
    torch.testing.assert_close(output.probabilities, probabilities)
    mean = expected_displacement(probabilities, LEVEL.labels(f))
    torch.testing.assert_close(output.expected_displacement, mean)
    assert torch.equal(output.labels, LEVEL.labels(f))


def test_the_dissimilarity_is_not_kept_unless_asked_for() -> None:
    image = smooth_image((12, 9, 12))
    with torch.no_grad():
        assert network()(image, image, LEVEL).dissimilarity is None


def test_features_moved_by_whole_voxels_are_found_where_they_went() -> None:
    moving = 10 * torch.randn(1, 6, 13, 13, 13, dtype=torch.float64)
    fixed = torch.roll(moving, shifts=(-1, 2, 1), dims=(2, 3, 4))  # fixed(p) = moving(p + (x -1, y -2, z +1))
    level = Level.cubic(13, 11, 5 / 6)  # labels of one voxel
    with torch.no_grad():
        found = network().search(fixed, moving, level).expected_displacement[5:-5, 5:-5, 5:-5]
    wanted = torch.tensor([-1.0, -2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, (wanted / 6).expand_as(found), rtol=0, atol=0.03)


def test_all_parameters_are_trained_by_one_loss() -> None:
    net, fixed, moving = network(), smooth_image((12, 9, 12)), smooth_image((12, 9, 12), 0.1)
    output = net(fixed, moving, LEVEL)
    output.expected_displacement.square().sum().backward()
    biases = {"regularisation.data_bias", "regularisation.message_bias"}  # they cancel in the softmax
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.abs().sum() > 1e-12) == (name not in biases | {"features.layer3.bias"}), name


def test_weights_trained_on_reversed_axes_find_the_reversed_displacement() -> None:
    shape = (18, 15, 21)
    fixed, moving = smooth_image(shape), smooth_image(shape, 0.1)
    levels = (LEVEL, Level((3, 4, 5), (3, 4, 3), (0.1, 0.2, 0.15)))
    reversed_levels = [Level(v.grid_shape[::-1], v.label_shape[::-1], v.reach[::-1]) for v in levels]
    ours = infer_with_warps(network("xyz"), fixed, moving, levels).displacement
    theirs = infer_with_warps(network("zyx"), reverse_axes(fixed), reverse_axes(moving), reversed_levels)
    torch.testing.assert_close(ours, reverse_axes(theirs.displacement).flip(1), rtol=0, atol=1e-6)
    assert (ours - reverse_axes(theirs.displacement)).abs().mean() > 0.1 * ours.abs().mean()


def test_levels_are_searched_fitted_and_composed_in_order() -> None:
    shape = (18, 15, 21)
    net, fixed, moving = network(), smooth_image(shape), smooth_image(shape, 0.15)
    second = Level((5, 4, 6), (3, 3, 3), (0.1, 0.1, 0.1))
    result = infer_with_warps(net, fixed, moving, (LEVEL, second), optimisation=None)
    with torch.no_grad():
        first_found = upsample_displacement(net(fixed, moving, LEVEL).expected_displacement, shape)
        warped = warp_normalised(moving, first_found)
        output = net(fixed, warped, second)
        then_found = upsample_displacement(output.expected_displacement, shape)
    torch.testing.assert_close(result.displacement, compose_normalised(first_found, then_found))
    summary = result.levels[1]
    assert summary.level == second
    torch.testing.assert_close(summary.displacement, output.expected_displacement)
    variance = displacement_covariance_diagonal(output.probabilities, output.labels)
    torch.testing.assert_close(summary.variance, variance)
    torch.testing.assert_close(summary.entropy, entropy(output.probabilities))


def test_a_warp_reads_the_moving_image_at_the_displaced_positions() -> None:
    volume = torch.randn(1, 2, 4, 5, 6, dtype=torch.float64)
    displacement = 0.5 * torch.randn(1, 3, 4, 5, 6, dtype=torch.float64)
    found = warp_normalised(volume, displacement)[0]
    points = layers.points_of((4, 5, 6), (1, 1, 1)) + np.moveaxis(displacement[0].numpy(), 0, 3)
    for index in np.ndindex(4, 5, 6):
        expected = layers.sample(volume[0].numpy(), points[index], "zeros")
        np.testing.assert_allclose(found[(slice(None), *index)], expected, atol=1e-12)


def test_the_composition_warps_like_two_warps() -> None:
    shape = (40, 36, 44)
    image = smooth_image(shape)
    first, then = smooth_displacement(shape, 0.2), smooth_displacement(shape, 0.2)
    twice = warp_normalised(warp_normalised(image, first), then)
    once = warp_normalised(image, compose_normalised(first, then))
    wrong_order = warp_normalised(image, compose_normalised(then, first))
    inner = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    error = (once - twice)[inner].abs().mean()
    assert error < 0.005
    assert (wrong_order - twice)[inner].abs().mean() > 2 * error


def test_what_begins_is_told_and_the_hook_can_end_it() -> None:
    image, told = smooth_image((12, 12, 12)), []
    infer_with_warps(network(), image, image, (Level.cubic(2, 3, 0.2),) * 2, on_stage=told.append)
    assert told == ["features of the fixed image", "level 1 of 2", "level 2 of 2"]

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        infer_with_warps(network(), image, image, between_chunks=stop)


def test_images_on_different_grids_and_no_levels_are_refused() -> None:
    image = smooth_image((12, 12, 12))
    with pytest.raises(ValueError, match="images on one grid"):
        infer_with_warps(network(), image, smooth_image((12, 12, 9)))
    with pytest.raises(ValueError, match="at least one level"):
        infer_with_warps(network(), image, image, ())
