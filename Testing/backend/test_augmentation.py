"""Augmentation: image and labels move alike, intensities change as asked, the generator decides."""

from __future__ import annotations

import pytest
import torch

from pddnet.errors import InputError
from pddnet.learning.augmentation import moved, recoloured
from pddnet.learning.settings import Augmentation


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blocks() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of 6^3 blocks, 0 around them, and an image that is ten times the label."""
    classes = torch.randint(0, 4, (4, 3, 5))
    for axis in range(3):
        classes = classes.repeat_interleave(6, axis)
    classes = torch.nn.functional.pad(classes, (3,) * 6)
    return 10.0 * classes[None, None].float(), classes


def test_image_and_labels_move_by_the_same_affine_map() -> None:
    image, classes = blocks()
    seen, seen_classes = moved(image, classes, 0.1, seeded())
    assert seen_classes is not None
    inside = (seen[0, 0] / 10 - seen_classes).abs() < 0.5
    assert (seen_classes != classes).float().mean() > 0.1
    assert inside.float().mean() > 0.9
    other = moved(image, classes, 0.1, seeded(4))[1]
    assert ((seen[0, 0] / 10 - other).abs() < 0.5).float().mean() < 0.8  # another map


def test_the_map_is_the_identity_plus_normal_numbers() -> None:
    ramp = torch.linspace(-1, 1, 33).expand(1, 1, 33, 33, 33).clone()  # x
    seen, nothing = moved(ramp, None, 0.02, seeded())
    assert nothing is None
    row = torch.eye(3, 4)[0] + 0.02 * torch.randn(3, 4, generator=seeded())[0]
    axis = torch.linspace(-1, 1, 33)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    expected = row[0] * x + row[1] * y + row[2] * z + row[3]
    torch.testing.assert_close(seen[0, 0], expected.clamp(-1, 1), atol=1e-5, rtol=0)


def test_no_strength_changes_nothing_but_the_generator_moves_on() -> None:
    image, classes = blocks()
    one, two = seeded(), seeded()
    same, same_classes = moved(image, classes, 0.0, one)
    moved(image, classes, 0.1, two)
    assert torch.equal(same, image)
    assert same_classes is classes
    assert torch.equal(one.get_state(), two.get_state())


def test_nothing_asked_for_leaves_intensities_alone() -> None:
    image = torch.rand(1, 1, 5, 6, 7)
    assert torch.equal(recoloured(image, Augmentation(), seeded()), image)


def test_gamma_keeps_the_order_and_the_range() -> None:
    image = torch.linspace(-2, 3, 60).view(1, 1, 3, 4, 5)
    seen = recoloured(image, Augmentation(gamma=1.0), seeded())
    assert (seen.flatten().diff() >= 0).all()
    assert seen.min() == pytest.approx(-2)
    assert seen.max() == pytest.approx(3)
    assert (seen - image).abs().max() > 0.05


def test_inversion_turns_light_into_dark() -> None:
    image = torch.rand(1, 1, 4, 5, 6)
    seen = recoloured(image, Augmentation(inversion=1.0), seeded())
    torch.testing.assert_close(seen, image.max() + image.min() - image)


def test_scale_and_shift_are_linear_and_noise_is_not() -> None:
    image = torch.rand(1, 1, 8, 8, 8)
    seen = recoloured(image, Augmentation(scale=0.3, shift=0.2), seeded()).flatten()
    slope = (seen[1:] - seen[:-1]) / image.flatten().diff()
    assert slope.std() < 1e-3
    assert abs(float(slope.mean()) - 1) > 0.01
    noisy = recoloured(image, Augmentation(noise=0.1), seeded())
    assert 0 < float((noisy - image).std()) < 0.1


def test_the_same_generator_gives_the_same_scan_and_the_argument_stays() -> None:
    image = torch.rand(1, 1, 4, 5, 6)
    before, how = image.clone(), Augmentation(gamma=0.5, scale=0.2, shift=0.1, noise=0.1, inversion=0.5)
    first, again = (recoloured(image, how, seeded()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, recoloured(image, how, seeded(5)))
    assert torch.equal(image, before)


def test_a_constant_scan_stays_finite() -> None:
    seen = recoloured(torch.ones(1, 1, 3, 3, 3), Augmentation(gamma=1.0), seeded())
    assert torch.isfinite(seen).all()


@pytest.mark.parametrize("wrong", [{"affine": -0.1}, {"noise": -1.0}, {"inversion": 1.5}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="0 or more are needed, for inversion up to 1"):
        Augmentation(**wrong)
