"""Warping against SimpleITK and closed forms: sampling, composition, gradients, edges."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import (
    affine_field,
    covering_geometry,
    noise,
    overlapping_geometry,
    patches,
    random_field,
    random_geometry,
    seeds,
)
from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry
from pddnet.inversion import invert
from pddnet.point_samples import inside, sample_linear, sample_nearest, sample_points
from pddnet.points import slabs
from pddnet.volume import LabelMap, Volume
from pddnet.warp import (
    AffineTransform,
    DisplacementField,
    Sequential,
    SpatialTransform,
    resample,
)


def points_of(geometry: ImageGeometry) -> torch.Tensor:
    return torch.cat([points for _, points in slabs(geometry)])


def random_affine(
    rng: np.random.Generator, geometry: ImageGeometry, strength: float = 0.1
) -> AffineTransform:
    """Close to the identity at the grid's centre."""
    matrix = np.eye(4)
    matrix[:3, :3] += rng.normal(0, strength, (3, 3))
    matrix[:3, 3] = geometry.centre - matrix[:3, :3] @ geometry.centre + rng.normal(0, 1.0, 3)
    return AffineTransform(matrix)


def smooth_field(geometry: ImageGeometry, mm: float = 1.5) -> DisplacementField:
    """Sines of about two periods over the field of view, well away from folding."""
    phase = points_of(geometry) - torch.from_numpy(geometry.centre)
    waves = torch.sin(phase.roll(1, -1) * 0.15) + torch.cos(phase.roll(-1, -1) * 0.1)
    return DisplacementField(mm * waves, geometry)


def by_sitk(moving: Volume | LabelMap, onto: ImageGeometry, field: DisplacementField) -> np.ndarray:
    """`sitk.Resample` with images made here by hand, not by the interop module."""

    def image(data: torch.Tensor, geometry: ImageGeometry) -> sitk.Image:
        result = sitk.GetImageFromArray(data.numpy(), isVector=data.ndim == 4)
        result.SetSpacing(geometry.spacing)
        result.SetOrigin(geometry.origin)
        result.SetDirection(np.ravel(geometry.direction).tolist())
        return result

    how = sitk.sitkLinear if isinstance(moving, Volume) else sitk.sitkNearestNeighbor
    fill = moving.fill_value if isinstance(moving, Volume) else 0.0
    transform = sitk.DisplacementFieldTransform(image(field.vectors.double(), field.geometry))
    reference = image(torch.zeros(onto.shape), onto)
    return sitk.GetArrayFromImage(
        sitk.Resample(image(moving.data, moving.geometry), reference, transform, how, fill)
    )


@examples(max_examples=20)
@given(seeds)
def test_warping_agrees_with_simpleitk_and_labels_to_the_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng)
    moving = overlapping_geometry(rng, fixed)
    field = random_field(rng, covering_geometry(fixed))
    image, labels = noise(rng, moving), patches(rng, moving)
    npt.assert_allclose(field.warp(image, fixed).data, by_sitk(image, fixed, field), atol=1e-3)
    npt.assert_array_equal(field.warp(labels, fixed).data, by_sitk(labels, fixed, field))


@pytest.mark.parametrize("mistake", ["sign", "axes", "order of rows"])
def test_a_wrong_sign_or_axis_would_be_noticed(mistake: str) -> None:
    rng = np.random.default_rng(11)
    fixed = random_geometry(rng)
    image = noise(rng, overlapping_geometry(rng, fixed))
    field = random_field(rng, covering_geometry(fixed))
    wrong = {
        "sign": -field.vectors,
        "axes": field.vectors.flip(-1),
        "order of rows": field.vectors.flip(0),
    }
    other = DisplacementField(wrong[mistake], field.geometry)
    differs = np.abs(field.warp(image, fixed).data.numpy() - by_sitk(image, fixed, other)) > 0.05
    assert differs.mean() > 0.1


def test_no_displacement_onto_the_own_grid_changes_nothing(oblique_geometry: ImageGeometry) -> None:
    rng = np.random.default_rng(0)
    image, labels = noise(rng, oblique_geometry), patches(rng, oblique_geometry)
    field = DisplacementField(
        torch.zeros((2, 2, 2, 3)), covering_geometry(oblique_geometry).cropped((0, 0, 0), (2, 2, 2))
    )
    npt.assert_allclose(field.warp(image, oblique_geometry).data, image.data, atol=1e-6)
    assert torch.equal(field.warp(labels, oblique_geometry).data, labels.data)


def test_a_shift_by_whole_voxels_moves_them_and_fills_what_comes_in(oblique_geometry: ImageGeometry) -> None:
    image = noise(np.random.default_rng(0), oblique_geometry)
    step = oblique_geometry.to_lps((2.0, 0, -1)) - oblique_geometry.to_lps((0.0, 0, 0))
    warped = resample(image, oblique_geometry, AffineTransform.translation(step)).data
    npt.assert_allclose(warped[1:, :, :-2], image.data[:-1, :, 2:], atol=1e-6)
    assert bool((warped[0] == image.fill_value).all())
    assert bool((warped[:, :, -2:] == image.fill_value).all())


def test_warping_keeps_names_and_types_and_lands_on_the_right_grid() -> None:
    rng = np.random.default_rng(0)
    own, fixed, other = random_geometry(rng), random_geometry(rng), random_geometry(rng)
    labels = LabelMap(torch.ones(own.shape), own, {1: "liver"})
    field = random_field(rng, own)
    meant = DisplacementField(field.vectors, own, fixed)
    assert field.warp(labels).geometry == own
    assert meant.warp(labels).geometry == fixed
    assert meant.warp(labels, other).geometry == other
    assert meant.warp(labels).names == {1: "liver"}
    assert isinstance(meant.warp(noise(rng, own)), Volume)


def test_warping_leaves_its_inputs_as_they_were() -> None:
    rng = np.random.default_rng(0)
    geometry = random_geometry(rng)
    image, field = noise(rng, geometry), random_field(rng, geometry)
    before = image.data.clone(), field.vectors.clone()
    field.warp(image)
    field.followed_by(field)
    assert torch.equal(image.data, before[0])
    assert torch.equal(field.vectors, before[1])


@examples(max_examples=10)
@given(seeds)
def test_one_transform_after_another_is_warping_twice(seed: int) -> None:
    # y -> f(g(x)): first f is undone by warping the image through g of the coordinates f was sampled on
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng)
    first, second = random_affine(rng, fixed), smooth_field(covering_geometry(fixed))
    points = points_of(fixed)
    twice = second.apply(first.apply(points))
    npt.assert_allclose(Sequential((first, second)).apply(points), twice, atol=1e-9)
    sampled = DisplacementField.sampled(first, fixed).followed_by(second)
    npt.assert_allclose(sampled.apply(points), twice, atol=1e-4)
    swapped = Sequential((second, first)).apply(points)
    assert float((swapped - twice).abs().max()) > 1e-3


def test_warping_an_image_twice_is_warping_it_through_the_composition() -> None:
    # whole-voxel shifts, so that resampling twice loses nothing
    geometry = random_geometry(np.random.default_rng(3), 8, 14)
    image = noise(np.random.default_rng(4), geometry)
    origin = geometry.to_lps((0.0, 0, 0))
    a = DisplacementField.sampled(
        AffineTransform.translation(geometry.to_lps((1.0, 0, 2)) - origin), geometry
    )
    b = DisplacementField.sampled(
        AffineTransform.translation(geometry.to_lps((0.0, -1, 1)) - origin), geometry
    )
    once = a.followed_by(b).warp(image).data  # x -> b(a(x)) looks up what b's warp holds at a(x)
    twice = a.warp(b.warp(image)).data
    inner = (slice(0, -4), slice(2, -2), slice(0, -2))
    npt.assert_allclose(once[inner], twice[inner], atol=1e-5)


def test_affine_transforms_compose_and_undo_each_other() -> None:
    rng = np.random.default_rng(5)
    geometry = random_geometry(rng)
    a, b = random_affine(rng, geometry), random_affine(rng, geometry)
    points = points_of(geometry)
    npt.assert_allclose(a.followed_by(b).apply(points), b.apply(a.apply(points)), atol=1e-9)
    npt.assert_allclose(a.followed_by(a.inverse()).matrix, np.eye(4), atol=1e-9)
    npt.assert_allclose(AffineTransform.identity().apply(points), points)
    npt.assert_allclose(
        AffineTransform.translation((1, 2, 3)).apply(torch.zeros(3, dtype=torch.float64)), [1, 2, 3]
    )
    assert float((b.followed_by(a).apply(points) - a.followed_by(b).apply(points)).abs().max()) > 1e-3


@examples(max_examples=10)
@given(seeds)
def test_the_gradient_of_an_affine_field_is_its_matrix_minus_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng)
    transform = random_affine(rng, geometry, 0.2)
    field = affine_field(transform.matrix, geometry)
    expected = torch.from_numpy(transform.matrix[:3, :3] - np.eye(3)).float()
    npt.assert_allclose(field.gradient, expected.expand(field.gradient.shape), atol=2e-4)
    inner = torch.from_numpy(geometry.to_lps(rng.uniform(0, np.subtract(geometry.size, 1), (8, 3))))
    npt.assert_allclose(field.gradient_at(inner), expected.expand(8, 3, 3), atol=2e-4)


def test_the_gradient_has_the_curl_of_a_rotation() -> None:
    # u = (-y, x, 0): curl (0, 0, 2), divergence 0
    geometry = random_geometry(np.random.default_rng(6))
    points = points_of(geometry)
    field = DisplacementField(
        torch.stack((-points[..., 1], points[..., 0], 0 * points[..., 2]), -1), geometry
    )
    g = field.gradient
    curl = torch.stack(
        (g[..., 2, 1] - g[..., 1, 2], g[..., 0, 2] - g[..., 2, 0], g[..., 1, 0] - g[..., 0, 1]), -1
    )
    npt.assert_allclose(curl, torch.tensor([0.0, 0.0, 2.0]).expand(curl.shape), atol=5e-4)
    npt.assert_allclose(g.diagonal(dim1=-2, dim2=-1).sum(-1), 0, atol=5e-4)


def test_a_field_one_voxel_thick_has_no_gradient_across() -> None:
    geometry = ImageGeometry((4, 5, 1))
    field = DisplacementField(torch.randn((1, 5, 4, 3)), geometry)
    assert bool((field.gradient[..., 2] == 0).all())
    assert bool(torch.isfinite(field.at(points_of(geometry) + 7)).all())


@examples(max_examples=10)
@given(seeds)
def test_a_field_sampled_on_a_finer_grid_is_the_same_transform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng)
    coarse = random_field(rng, covering_geometry(fixed))
    fine = coarse.on(fixed)
    npt.assert_allclose(fine.vectors, coarse.at(points_of(fixed)), atol=1e-5)
    assert fine.geometry == fixed


def test_beyond_its_border_a_field_holds_the_border(oblique_geometry: ImageGeometry) -> None:
    field = random_field(np.random.default_rng(0), oblique_geometry)
    far = torch.from_numpy(oblique_geometry.to_lps([(-50.0, 4, 5), (100.0, 8, 10), (3, -9, 999)]))
    expected = torch.stack((field.vectors[5, 4, 0], field.vectors[10, 8, 6], field.vectors[10, 0, 3]))
    npt.assert_allclose(field.at(far), expected, atol=1e-6)


def test_a_voxel_reaches_half_a_spacing_beyond_its_centre() -> None:
    index = torch.tensor([[-0.5, 0, 0], [-0.501, 0, 0], [2.499, 3, 4], [2.5, 3, 4], [1, 1, 4.4999]]).double()
    assert inside(index, (5, 4, 3)).tolist() == [True, False, True, False, True]


def test_linear_samples_agree_with_the_formula_and_hold_the_border() -> None:
    rng = np.random.default_rng(0)
    channels = torch.from_numpy(rng.random((2, 4, 5, 6), dtype=np.float32))
    index = torch.tensor([[2.25, 3.5, 1.75], [5.0, 4.0, 3.0], [-3.0, 9.0, 1.0]]).double()
    x, y, z = 0.25, 0.5, 0.75
    corner = channels[:, 1:3, 3:5, 2:4].double()
    along_x = corner[..., 0] * (1 - x) + corner[..., 1] * x
    along_y = along_x[..., 0] * (1 - y) + along_x[..., 1] * y
    expected = torch.stack(
        (
            along_y[..., 0] * (1 - z) + along_y[..., 1] * z,
            channels[:, 3, 4, 5].double(),
            channels[:, 1, 4, 0].double(),
        )
    )
    npt.assert_allclose(sample_linear(channels, index), expected, atol=1e-7)


@pytest.mark.parametrize("count", [1, 1023, 1024, 5000])
def test_samples_of_points_in_float32_are_those_in_float64(count: int) -> None:
    rng = np.random.default_rng(count)
    channels = torch.from_numpy(rng.random((3, 6, 9, 8), dtype=np.float32))
    index = torch.from_numpy(rng.uniform(-2, 11, (count, 3)))
    found = sample_points(channels, index.float().T)
    npt.assert_allclose(found.T, sample_linear(channels, index), atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_linear_samples_do_not_depend_on_which_others_are_asked_for(scale: float) -> None:
    rng = np.random.default_rng(1)
    channels = torch.from_numpy(rng.random((1, 7, 8, 9), dtype=np.float32))
    index = torch.from_numpy(rng.uniform(-1, 9, (50, 3)) * scale)
    together = sample_linear(channels, index)
    alone = torch.cat([sample_linear(channels, one[None]) for one in index])
    npt.assert_allclose(together, alone, atol=1e-7)


def test_nearest_samples_round_halves_up_as_itk_does() -> None:
    data = torch.arange(60).view(5, 4, 3)
    index = torch.tensor([[0.5, 0, 0], [1.49, 2.5, 3.51], [-0.2, 0, 0], [9, 9, 9]]).double()
    expected = [data[0, 0, 1], data[4, 3, 1], data[0, 0, 0], data[4, 3, 2]]
    assert sample_nearest(data, index).tolist() == [int(v) for v in expected]


def test_the_inverse_of_an_affine_field_is_the_inverse_matrix() -> None:
    rng = np.random.default_rng(8)
    fixed = random_geometry(rng)
    transform = random_affine(rng, fixed)
    field = affine_field(transform.matrix, covering_geometry(covering_geometry(fixed)))
    onto = fixed.coarsened((2, 2, 2))
    inverse, residual = invert(field, onto)
    expected = transform.inverse().apply(points_of(onto))
    npt.assert_allclose(inverse.apply(points_of(onto)), expected, atol=5e-3)
    assert float(residual.data.max()) < 2e-3
    assert inverse.geometry == onto


def test_the_inverse_of_a_smooth_field_leads_back_and_the_negated_field_does_not() -> None:
    fixed = random_geometry(np.random.default_rng(9), 9, 14)
    field = smooth_field(covering_geometry(fixed))
    inverse, residual = invert(field, fixed)
    points = points_of(fixed)
    assert float(residual.data.max()) < 2e-3
    npt.assert_allclose(field.apply(inverse.apply(points)), points, atol=5e-3)
    negated = DisplacementField(-field.vectors, field.geometry)
    assert float((field.apply(negated.apply(points)) - points).abs().max()) > 0.1


def test_the_residual_is_what_the_inverse_misses_by_even_where_the_field_folds() -> None:
    rng = np.random.default_rng(10)
    fixed = random_geometry(rng)
    folded = random_field(rng, covering_geometry(fixed), mm=6.0)
    inverse, residual = invert(folded, fixed)
    points = points_of(fixed)
    missed = (folded.apply(inverse.apply(points)) - points).square().sum(-1).sqrt()
    npt.assert_allclose(residual.data, missed, atol=1e-4)
    assert bool((torch.linalg.det(folded.gradient + torch.eye(3)) < 0).any())


def test_every_transform_is_a_spatial_transform() -> None:
    geometry = ImageGeometry((2, 2, 2))
    field = DisplacementField(torch.zeros((2, 2, 2, 3)), geometry)
    for transform in (AffineTransform.identity(), field, Sequential((field,))):
        assert isinstance(transform, SpatialTransform)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "4x4"),
        (np.diag([1.0, 1, 0, 1]), "singular"),
        (np.full((4, 4), np.nan), "finite"),
        (np.eye(4) + np.eye(4)[[3, 0, 1, 2]], "last row"),
    ],
)
def test_a_matrix_that_is_no_affine_transform_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AffineTransform(matrix)


def test_vectors_that_do_not_fit_the_grid_are_refused() -> None:
    with pytest.raises(InputError, match=r"vectors have shape.*\(4, 3, 2, 3\)"):
        DisplacementField(torch.zeros((2, 3, 4, 3)), ImageGeometry((2, 3, 4)))


def test_a_field_is_single_precision_on_the_cpu_without_a_graph() -> None:
    vectors = torch.zeros((2, 2, 2, 3), dtype=torch.float64, requires_grad=True)
    field = DisplacementField(vectors, ImageGeometry((2, 2, 2)))
    assert (field.vectors.dtype, field.vectors.requires_grad) == (torch.float32, False)
    assert field.geometry.matrix(Frame.INDEX, Frame.LPS)[3, 3] == 1


def test_a_field_that_is_not_finite_is_refused() -> None:
    vectors = torch.zeros(3, 3, 3, 3)
    vectors[1, 1, 1, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        DisplacementField(vectors, ImageGeometry((3, 3, 3)))
