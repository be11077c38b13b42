"""Metrics against closed forms and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.testing as npt
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import affine_field, covering_geometry, patches, random_field, random_geometry, seeds
from pddnet import metrics
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.interop.simpleitk import to_sitk
from pddnet.points import plane_slabs, slabs
from pddnet.volume import LabelMap
from pddnet.warp import AffineTransform, DisplacementField

Compare = Callable[[LabelMap, LabelMap], dict[int, float]]


def brute_force_surface(mask: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """Points (N, 3) mm LPS of the set voxels (k, j, i) with an unset one among their six neighbours."""
    voxels = {tuple(v) for v in np.argwhere(mask)}
    steps = [step * sign for step in np.eye(3, dtype=int) for sign in (-1, 1)]
    edge = [v for v in voxels if any(tuple(np.add(v, s)) not in voxels for s in steps)]
    return geometry.to_lps(np.array(edge)[:, ::-1])


def brute_force_distances(a: LabelMap, b: LabelMap, label: int) -> tuple[float, float]:
    surface_a = brute_force_surface(a.data.numpy() == label, a.geometry)
    surface_b = brute_force_surface(b.data.numpy() == label, b.geometry)
    between = np.linalg.norm(surface_a[:, None] - surface_b[None], axis=-1)
    to_b, to_a = between.min(1), between.min(0)
    return max(np.percentile(to_b, 95), np.percentile(to_a, 95)), float(np.concatenate((to_b, to_a)).mean())


def blobs(rng: np.random.Generator, geometry: ImageGeometry) -> LabelMap:
    """Two solid ellipsoids at random places."""
    index = np.stack(np.indices(geometry.shape), -1)
    data = np.zeros(geometry.shape, np.int32)
    for label in (3, 7):
        centre, radius = rng.uniform(0.3, 0.7, 3) * geometry.shape, rng.uniform(1.5, 4.0, 3)
        data[(((index - centre) / radius) ** 2).sum(-1) < 1] = label
    return LabelMap(torch.from_numpy(data), geometry)


def box_map(start: int, stop: int, geometry: ImageGeometry) -> LabelMap:
    data = torch.zeros(geometry.shape, dtype=torch.int32)
    data[2:5, 2:5, start:stop] = 1
    return LabelMap(data, geometry)


@examples(max_examples=15)
@given(seeds)
def test_dice_counts_shared_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng)
    a, b = patches(rng, geometry), patches(rng, geometry)
    x, y = a.data.numpy(), b.data.numpy()
    expected = {n: 2 * ((x == n) & (y == n)).sum() / ((x == n).sum() + (y == n).sum()) for n in range(1, 5)}
    assert metrics.dice(a, b) == pytest.approx(expected)


def test_dice_is_1_for_equal_maps_and_0_for_a_label_that_one_map_lacks() -> None:
    geometry = ImageGeometry((12, 6, 6))
    both = LabelMap(box_map(1, 4, geometry).data + 2 * box_map(7, 9, geometry).data, geometry)
    assert metrics.dice(both, both) == {1: 1.0, 2: 1.0}
    assert metrics.dice(both, box_map(1, 4, geometry)) == {1: 1.0, 2: 0.0}


# farther and farther, everywhere at once, every pair, and as it is
SEARCHES = [(0.0, 0.7), (0.0, 1e3), (1e9, 0.7), (metrics._PAIRS_PER_STEP, metrics._FIRST_REACH_MM)]


@pytest.mark.parametrize(("pairs", "reach_mm"), SEARCHES)
@examples(max_examples=15)
@given(seeds)
def test_surface_distances_agree_with_brute_force(pairs: float, reach_mm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng, 9, 16)
    a, b = blobs(rng, geometry), blobs(rng, geometry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_PAIRS_PER_STEP", pairs)
        patch.setattr(metrics, "_FIRST_REACH_MM", reach_mm)
        found = metrics.surface_distances(a, b)
    for label in set(a.labels) & set(b.labels):
        hd95, assd = brute_force_distances(a, b, label)
        assert (found[label].hd95, found[label].assd) == pytest.approx((hd95, assd), abs=1e-4)


def test_surface_distances_agree_with_brute_force_for_scattered_voxels_up_to_the_edge() -> None:
    rng = np.random.default_rng(5)
    geometry = random_geometry(rng)
    a, b = patches(rng, geometry, 3), patches(rng, geometry, 3)
    for label, found in metrics.surface_distances(a, b).items():
        assert (found.hd95, found.assd) == pytest.approx(brute_force_distances(a, b, label), abs=1e-4)


def test_a_box_moved_by_two_voxels_has_the_distances_one_can_count() -> None:
    geometry = ImageGeometry((12, 7, 7), (1.5, 1.0, 1.0))
    found = metrics.surface_distances(box_map(2, 5, geometry), box_map(4, 7, geometry))[1]
    assert found.hd95 == pytest.approx(3.0)
    assert metrics.hd95(box_map(2, 5, geometry), box_map(2, 5, geometry)) == {1: 0.0}
    assert metrics.assd(box_map(2, 5, geometry), box_map(2, 5, geometry)) == {1: 0.0}


def test_distances_are_infinite_where_one_map_lacks_the_label() -> None:
    geometry = ImageGeometry((12, 7, 7))
    empty = LabelMap(torch.zeros(geometry.shape), geometry)
    assert metrics.hd95(box_map(2, 5, geometry), empty) == {1: math.inf}
    assert metrics.assd(empty, box_map(2, 5, geometry)) == {1: math.inf}
    assert metrics.surface_distances(empty, empty) == {}


@pytest.mark.parametrize("compare", [metrics.dice, metrics.hd95, metrics.assd])
def test_label_maps_on_different_grids_are_refused(compare: Compare) -> None:
    here, there = ImageGeometry((12, 7, 7)), ImageGeometry((12, 7, 7), origin=(0.5, 0, 0))
    with pytest.raises(InputError, match=r"different grids.*resample"):
        compare(box_map(2, 5, here), box_map(2, 5, there))


def test_landmarks_miss_by_what_the_transform_leaves() -> None:
    fixed = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]])
    moving = fixed + torch.tensor([3.0, 4.0, 0.0])
    shift = AffineTransform.translation((3.0, 4.0, 12.0))
    npt.assert_allclose(metrics.target_registration_error(fixed, moving, AffineTransform.identity()), 5.0)
    npt.assert_allclose(metrics.target_registration_error(fixed, moving, shift), 12.0)
    with pytest.raises(InputError, match=r"landmarks.*pairs"):
        metrics.target_registration_error(fixed, moving[:1], shift)


@examples(max_examples=15)
@given(seeds)
def test_the_determinant_of_an_affine_field_is_that_of_its_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng)
    matrix = np.eye(4)
    matrix[:3, :3] += rng.normal(0, 0.15, (3, 3))
    field = affine_field(matrix, geometry)
    coarse = affine_field(matrix, covering_geometry(geometry))
    expected = np.linalg.det(matrix[:3, :3])
    npt.assert_allclose(metrics.jacobian_determinant(field).data, expected, atol=1e-4)
    npt.assert_allclose(metrics.jacobian_determinant(coarse, geometry).data, expected, atol=1e-4)


def quadratic_field(geometry: ImageGeometry) -> tuple[DisplacementField, torch.Tensor]:
    """u = (a yy, b zz, c xx) about the centre, with determinant 1 + 8abc xyz: a curl no scaling imitates."""
    points = torch.cat([rows for _, rows in slabs(geometry)]) - torch.from_numpy(geometry.centre)
    x, y, z = points.unbind(-1)
    a, b, c = 0.06, -0.05, 0.08
    vectors = torch.stack((a * y * y, b * z * z, c * x * x), -1)
    return DisplacementField(vectors, geometry), 1 + 8 * a * b * c * x * y * z


def test_the_determinant_of_a_curved_field_is_exact_inside_on_oblique_grids(
    oblique_geometry: ImageGeometry,
) -> None:
    field, expected = quadratic_field(oblique_geometry)
    found = metrics.jacobian_determinant(field).data
    inner = (slice(1, -1),) * 3  # central differences of a parabola are exact
    assert float((expected[inner] - 1).abs().max()) > 0.02
    npt.assert_allclose(found[inner], expected[inner], atol=2e-4)


def test_the_determinant_without_the_direction_cosines_is_wrong() -> None:
    # the negative control: SimpleITK's filter reads the vectors as if the grid were not rotated
    rng = np.random.default_rng(3)
    geometry = random_geometry(rng)
    matrix = np.diag([1.4, 1.0, 0.8, 1.0])
    matrix[0, 1] = 0.5
    field = affine_field(matrix, geometry)
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(to_sitk(field)))[
        1:-1, 1:-1, 1:-1
    ]
    expected = np.linalg.det(matrix)
    assert abs(theirs - expected).min() > 0.02
    npt.assert_allclose(metrics.jacobian_determinant(field).data, expected, atol=1e-4)


def test_the_determinant_agrees_with_simpleitk_where_the_axes_are_not_turned() -> None:
    geometry = ImageGeometry((9, 11, 8), (1.5, 0.7, 2.0), (10.0, -20.0, 30.0))
    field = random_field(np.random.default_rng(0), geometry, mm=0.3)
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(to_sitk(field)))[
        1:-1, 1:-1, 1:-1
    ]
    npt.assert_allclose(metrics.jacobian_determinant(field).data[1:-1, 1:-1, 1:-1], theirs, atol=1e-4)


def test_the_determinant_does_not_depend_on_how_the_grid_is_walked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    geometry = random_geometry(rng)
    field = random_field(rng, covering_geometry(geometry), mm=0.5)
    whole = metrics.jacobian_determinant(field, geometry).data
    monkeypatch.setattr(metrics, "plane_slabs", lambda shape: plane_slabs(shape, 1))  # one slice at a time
    npt.assert_allclose(metrics.jacobian_determinant(field, geometry).data, whole, atol=1e-5)


def test_a_mirror_folds_everywhere_and_a_shift_nowhere() -> None:
    geometry = random_geometry(np.random.default_rng(2))
    mirror = affine_field(np.diag([-1.0, 1.0, 1.0, 1.0]), geometry)
    shift = affine_field(AffineTransform.translation((3, 4, 5)).matrix, geometry)
    assert metrics.folding_fraction(mirror) == 1.0
    assert metrics.folding_fraction(shift) == 0.0
    assert metrics.jacobian_std(shift) == pytest.approx(0.0, abs=1e-4)
    assert metrics.log_jacobian_std(shift) == pytest.approx(0.0, abs=1e-4)


def half_folded() -> tuple[DisplacementField, LabelMap]:
    """Along x: twice as long in voxels 0 to 5, mirrored in 6 to 11; and a mask of the first part."""
    geometry = ImageGeometry((12, 4, 4), (2.0, 1.0, 1.0))
    x = torch.arange(12.0) * 2
    vectors = torch.zeros((*geometry.shape, 3))
    vectors[..., 0] = torch.where(torch.arange(12) < 6, x, 20 - 2 * x)  # x + u: 2x, then 20 - x
    mask = torch.zeros(geometry.shape)
    mask[..., :5] = 1
    return DisplacementField(vectors, geometry), LabelMap(mask, geometry)


def test_folding_and_spread_are_measured_inside_the_mask() -> None:
    field, mask = half_folded()
    everywhere, inside = metrics.field_quality(field), metrics.field_quality(field, mask)
    assert inside == metrics.FieldQuality(0.0, pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6), 2.0)
    assert everywhere.folding_fraction == metrics.folding_fraction(field) == 7 / 12
    determinants = np.array([2.0] * 5 + [-2.0, -3.5] + [-1.0] * 5)  # x + u jumps from 20 to 8 at the crease
    assert everywhere.jacobian_std == pytest.approx(determinants.std(), abs=1e-5)
    assert everywhere.log_jacobian_std == pytest.approx(np.log(determinants.clip(1e-9, 1e9)).std(), abs=1e-5)


def test_the_mask_decides_on_which_grid_a_field_is_judged() -> None:
    rng = np.random.default_rng(4)
    geometry = random_geometry(rng)
    field = random_field(rng, covering_geometry(geometry), mm=1.0)
    mask = LabelMap(torch.ones(geometry.shape), geometry)
    determinant = metrics.jacobian_determinant(field, geometry)
    assert metrics.jacobian_std(field, mask) == pytest.approx(
        float(determinant.data.double().std(correction=0))
    )
    assert metrics.jacobian_std(field) != pytest.approx(metrics.jacobian_std(field, mask), rel=0.01)


def test_a_mask_that_is_empty_or_on_another_grid_is_refused() -> None:
    field, mask = half_folded()
    with pytest.raises(InputError, match="0 everywhere"):
        metrics.folding_fraction(field, LabelMap(torch.zeros(mask.geometry.shape), mask.geometry))
    other = ImageGeometry((3, 3, 3))
    with pytest.raises(InputError, match="another grid"):
        metrics.FieldQuality.of(metrics.jacobian_determinant(field), LabelMap(torch.ones(3, 3, 3), other))


def test_a_transform_and_its_inverse_are_consistent_and_a_wrong_sign_is_not() -> None:
    geometry = random_geometry(np.random.default_rng(6))
    there = affine_field(AffineTransform.translation((3, 4, 0)).matrix, geometry)
    back = AffineTransform.translation((-3, -4, 0))
    npt.assert_allclose(metrics.inverse_consistency_error(there, back).data, 0.0, atol=1e-5)
    npt.assert_allclose(metrics.inverse_consistency_error(there, there).data, 10.0, atol=1e-4)
    assert (
        metrics.inverse_consistency_error(there, back, covering_geometry(geometry)).geometry.size
        != geometry.size
    )
