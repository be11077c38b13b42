"""The solids a synthetic patient is made of, how they are painted, and the noise on top."""

from __future__ import annotations

import math

import pytest
import torch

from pddnet.synthetic.canvas import AIR, Canvas
from pddnet.synthetic.implicit import (
    Points,
    Profile,
    Solid,
    capsule,
    difference,
    ellipsoid,
    half_space,
    intersection,
    rotation,
    smooth_max,
    smooth_min,
    tube,
    union,
)
from pddnet.synthetic.texture import Texture, scanner_noise

WAVY = [(-20.0, 0.0, -8.0, 4.0), (-6.0, 9.0, 0.0, 6.0), (8.0, -7.0, 4.0, 3.0), (21.0, 2.0, 9.0, 5.0)]


def grid(extent: float = 40.0, step: float = 2.0) -> Points:
    axis = torch.arange(-extent, extent + step, step)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return x, y, z


def scattered(count: int = 400, extent: float = 40.0) -> Points:
    x, y, z = (torch.rand((3, count)) * 2 - 1) * extent
    return x, y, z


def test_a_ball_is_known_by_its_distance() -> None:
    points = scattered()
    distance = ellipsoid((3.0, -4.0, 5.0), (12.0, 12.0, 12.0)).distance(points)
    exact = torch.stack([p - c for p, c in zip(points, (3.0, -4.0, 5.0), strict=True)]).norm(dim=0) - 12
    torch.testing.assert_close(distance, exact, atol=1e-3, rtol=0)


def test_the_middle_of_an_ellipsoid_is_its_smallest_radius_deep() -> None:
    centre = (torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0]))
    assert float(ellipsoid((1.0, 2.0, 3.0), (9.0, 5.0, 7.0)).distance(centre)) == pytest.approx(
        -5.0, abs=1e-4
    )


def test_a_turned_ellipsoid_reaches_its_radii_along_its_axes() -> None:
    turned, radii, centre = rotation(20.0, -35.0, 50.0), (20.0, 12.0, 7.0), (1.0, 2.0, 3.0)
    solid = ellipsoid(centre, radii, turned)
    for axis, radius in enumerate(radii):
        tip = [torch.tensor([centre[i] + turned[i][axis] * radius]) for i in range(3)]
        assert abs(float(solid.distance((tip[0], tip[1], tip[2])))) < 1e-4
    torch.testing.assert_close(torch.tensor(turned) @ torch.tensor(turned).T, torch.eye(3))


def test_a_capsule_is_a_segment_grown_round() -> None:
    points = scattered()
    stacked = torch.stack(points, -1)
    start, end = torch.tensor([-10.0, 5.0, 0.0]), torch.tensor([15.0, -5.0, 8.0])
    samples = torch.stack([start + t * (end - start) for t in torch.linspace(0, 1, 2001)])
    nearest = torch.cdist(stacked, samples).amin(1) - 4
    solid = capsule((-10.0, 5.0, 0.0), (15.0, -5.0, 8.0), 4.0)
    torch.testing.assert_close(solid.distance(points), nearest, atol=2e-2, rtol=0)


def test_a_tube_passes_through_its_knots_with_their_radii() -> None:
    solid = tube(WAVY, size=1.5)
    for x, y, z, radius in WAVY:
        knot = (torch.tensor([x]), torch.tensor([y]), torch.tensor([z]))
        assert float(solid.distance(knot)) <= -1.5 * radius + 1e-3


@pytest.mark.parametrize(
    "solid",
    [
        ellipsoid((3.0, 4.0, -2.0), (25.0, 8.0, 12.0), rotation(30.0, 20.0, 10.0)),
        tube(WAVY),
        union(tube(WAVY), ellipsoid((0.0, 15.0, 0.0), (9.0, 9.0, 9.0)), blend=8.0),
        intersection(tube(WAVY), half_space((0.0, 0.0, 0.0), (1.0, 0.5, 0.0)), blend=3.0),
        difference(tube(WAVY), ellipsoid((0.0, 0.0, 0.0), (9.0, 9.0, 9.0)), gap=2.0, blend=3.0),
        tube(WAVY).grown(3.0),
    ],
)
def test_the_box_of_a_solid_holds_it(solid: Solid) -> None:
    points = grid()
    inside = solid.distance(points) < 0
    assert inside.any()
    for coordinates, low, high in zip(points, solid.low, solid.high, strict=True):
        assert low - 1e-3 <= float(coordinates[inside].min())
        assert float(coordinates[inside].max()) <= high + 1e-3


def test_unions_cuts_and_differences_agree_with_logic() -> None:
    points = grid(step=3.0)
    a, b = ellipsoid((-5.0, 0.0, 0.0), (14.0, 11.0, 12.0)), ellipsoid((6.0, 3.0, 0.0), (12.0, 9.0, 15.0))
    in_a, in_b = a.distance(points) < 0, b.distance(points) < 0
    assert torch.equal(union(a, b).distance(points) < 0, in_a | in_b)
    assert torch.equal(intersection(a, b).distance(points) < 0, in_a & in_b)
    assert torch.equal(difference(a, b).distance(points) < 0, in_a & ~(b.distance(points) <= 0))


def test_blending_only_rounds_where_both_surfaces_are_near() -> None:
    a, b = torch.tensor([0.0, 0.0, 5.0]), torch.tensor([0.0, 2.0, -5.0])
    torch.testing.assert_close(smooth_min(a, b, 4.0), torch.tensor([-1.0, -0.25, -5.0]))
    torch.testing.assert_close(smooth_max(a, b, 4.0), torch.tensor([1.0, 2.25, 5.0]))


def test_a_profile_passes_through_its_values_and_stays_constant_beyond() -> None:
    profile = Profile((-10.0, 0.0, 30.0), (1.0, 4.0, 2.0))
    at = torch.tensor([-50.0, -10.0, 0.0, 30.0, 90.0])
    torch.testing.assert_close(profile(at), torch.tensor([1.0, 1.0, 4.0, 2.0, 2.0]), atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="must rise"):
        Profile((0.0, 0.0), (1.0, 2.0))


def test_partial_volume_conserves_the_volume_of_a_ball() -> None:
    canvas = Canvas(grid(step=4.0), softness_mm=4.0)
    canvas.paint(ellipsoid((1.3, -0.7, 0.4), (14.0, 14.0, 14.0)), AIR + 500, label=7)
    volume = float(((canvas.hu - AIR) / 500).sum()) * 4.0**3
    assert volume == pytest.approx(4 / 3 * math.pi * 14**3, rel=0.02)
    assert torch.equal(canvas.labels == 7, canvas.hu > AIR + 250)


def test_a_solid_in_parts_is_painted_as_one() -> None:
    whole, parted = (Canvas(grid(), softness_mm=2.0) for _ in range(2))
    solid = tube(WAVY)
    parted.paint(solid, lambda _, distance: 10 * distance, label=2)
    whole.paint(Solid(solid.distance), lambda _, distance: 10 * distance, label=2)
    assert torch.equal(whole.labels, parted.labels)
    torch.testing.assert_close(whole.hu, parted.hu)
    assert (parted.labels == 2).any()


def test_later_paint_covers_earlier_paint_and_labels_only_if_told() -> None:
    canvas = Canvas(grid(step=4.0), softness_mm=1.0)
    ball, core = (ellipsoid((0.0, 0.0, 0.0), (r, r, r)) for r in (20.0, 9.0))
    canvas.paint(ball, 50.0, label=1)
    canvas.paint(core, 200.0, label=None)
    middle = tuple(n // 2 for n in canvas.hu.shape)
    assert (float(canvas.hu[middle]), int(canvas.labels[middle])) == (200.0, 1)
    canvas.paint(core, 0.0)
    assert int(canvas.labels[middle]) == 0


def test_paint_outside_the_canvas_changes_nothing() -> None:
    canvas = Canvas(grid(), softness_mm=2.0)
    canvas.paint(ellipsoid((500.0, 0.0, 0.0), (9.0, 9.0, 9.0)), 100.0, label=3)
    assert bool((canvas.hu == AIR).all() & (canvas.labels == 0).all())


def test_a_texture_has_unit_spread_and_its_wavelength() -> None:
    texture = Texture(torch.Generator().manual_seed(0))
    x, y, z = grid(100.0, 4.0)
    values = texture((x, y, z), 12.0)
    assert abs(float(values.mean())) < 0.1
    assert float(values.std()) == pytest.approx(1.0, abs=0.15)
    near, far = texture((x + 1, y, z), 12.0), texture((x + 24, y, z), 12.0)
    assert float((values * near).mean()) > 0.8
    assert abs(float((values * far).mean())) < 0.15


def test_noise_is_correlated_between_small_voxels_and_not_between_large_ones() -> None:
    for spacing, low, high in ((0.8, 0.4, 0.8), (2.0, 0.05, 0.3), (5.0, -0.02, 0.02)):
        noise = scanner_noise((40, 40, 40), (spacing,) * 3, torch.Generator().manual_seed(1))
        assert float(noise.std()) == pytest.approx(1.0, abs=0.02)
        assert low < float((noise[1:] * noise[:-1]).mean()) < high
