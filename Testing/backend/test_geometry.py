"""Laws of image geometry, and SimpleITK as the judge of where a voxel lies."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.testing as npt
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import random_geometry, seeds
from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry, lps_to_ras, transform_points, transform_vectors
from pddnet.points import slabs, transform_points_torch, transform_vectors_torch

PAIRS = list(itertools.permutations(Frame, 2))


def as_sitk(geometry: ImageGeometry) -> sitk.Image:
    image = sitk.Image(geometry.size, sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(np.ravel(geometry.direction).tolist())
    return image


def random_index(rng: np.random.Generator, geometry: ImageGeometry, count: int = 20) -> np.ndarray:
    """Continuous indices inside and somewhat outside the grid."""
    return rng.uniform(-2, np.add(geometry.size, 1), (count, 3))


@examples(max_examples=30)
@given(seeds)
def test_continuous_indices_lie_where_simpleitk_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng)
    index, image = random_index(rng, geometry), as_sitk(geometry)
    theirs = [image.TransformContinuousIndexToPhysicalPoint(i) for i in index.tolist()]
    npt.assert_allclose(geometry.to_lps(index), theirs, atol=1e-9)
    back = [image.TransformPhysicalPointToContinuousIndex(p) for p in theirs]
    npt.assert_allclose(geometry.to_index(theirs), back, atol=1e-9)


@pytest.mark.parametrize("mistake", ["axes", "transposed direction", "hand"])
def test_a_mistake_in_axes_or_direction_would_be_noticed(mistake: str) -> None:
    rng = np.random.default_rng(0)
    geometry = random_geometry(rng)
    index, image = random_index(rng, geometry), as_sitk(geometry)
    rows = np.asarray(geometry.direction)
    wrong = {
        "axes": geometry.to_lps(index[:, ::-1]),
        "transposed direction": index * geometry.spacing @ rows + geometry.origin,
        "hand": index * geometry.spacing @ (rows * [1, 1, -1]).T + geometry.origin,
    }
    theirs = [image.TransformContinuousIndexToPhysicalPoint(i) for i in index.tolist()]
    assert np.abs(wrong[mistake] - theirs).max() > 0.5


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda frame: frame.name)
@examples(max_examples=5)
@given(seeds)
def test_there_and_back_between_two_frames_changes_nothing(source: Frame, target: Frame, seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng)
    there, back = geometry.matrix(source, target), geometry.matrix(target, source)
    npt.assert_allclose(back @ there, np.eye(4), atol=1e-9)
    points = rng.normal(0, 30, (10, 3))
    npt.assert_allclose(transform_points(back, transform_points(there, points)), points, atol=1e-9)
    vectors = rng.normal(0, 30, (10, 3))
    npt.assert_allclose(transform_vectors(back, transform_vectors(there, vectors)), vectors, atol=1e-9)


@pytest.mark.parametrize("through", Frame, ids=lambda frame: frame.name)
def test_a_detour_through_another_frame_ends_at_the_same_place(
    through: Frame, oblique_geometry: ImageGeometry
) -> None:
    for source, target in PAIRS:
        detour = oblique_geometry.matrix(through, target) @ oblique_geometry.matrix(source, through)
        npt.assert_allclose(detour, oblique_geometry.matrix(source, target), atol=1e-9)


def test_a_frame_to_itself_is_the_identity(oblique_geometry: ImageGeometry) -> None:
    for frame in Frame:
        npt.assert_allclose(oblique_geometry.matrix(frame, frame), np.eye(4), atol=1e-12)


def test_the_cube_goes_from_the_first_to_the_last_voxel_centre(oblique_geometry: ImageGeometry) -> None:
    to_index = oblique_geometry.matrix(Frame.CUBE, Frame.INDEX)
    npt.assert_allclose(transform_points(to_index, np.array([-1.0, -1, -1])), 0, atol=1e-12)
    last = np.subtract(oblique_geometry.size, 1)
    npt.assert_allclose(transform_points(to_index, np.array([1.0, 1, 1])), last, atol=1e-12)
    npt.assert_allclose(transform_points(to_index, np.zeros(3)), last / 2, atol=1e-12)


def test_ras_is_lps_with_two_signs_changed(oblique_geometry: ImageGeometry) -> None:
    index = np.array([1.0, 2.5, -3.0])
    in_ras = transform_points(oblique_geometry.matrix(Frame.INDEX, Frame.RAS), index)
    in_lps = oblique_geometry.to_lps(index)
    npt.assert_allclose(in_ras, in_lps * [-1, -1, 1], atol=1e-9)
    npt.assert_allclose(lps_to_ras(in_lps), in_ras, atol=1e-9)
    npt.assert_allclose(lps_to_ras(lps_to_ras(in_lps)), in_lps)


def test_vectors_are_turned_and_scaled_but_not_moved(oblique_geometry: ImageGeometry) -> None:
    matrix = oblique_geometry.matrix(Frame.INDEX, Frame.LPS)
    a, b = np.array([1.0, 2, 3]), np.array([4.0, -1, 0.5])
    moved = transform_points(matrix, b) - transform_points(matrix, a)
    npt.assert_allclose(transform_vectors(matrix, b - a), moved, atol=1e-9)
    npt.assert_allclose(transform_vectors(matrix, np.zeros(3)), 0)
    assert np.abs(transform_points(matrix, np.zeros(3))).max() > 1


def test_tensors_are_transformed_like_arrays_in_their_own_precision(oblique_geometry: ImageGeometry) -> None:
    matrix, points = (
        oblique_geometry.matrix(Frame.INDEX, Frame.LPS),
        np.random.default_rng(0).random((2, 4, 3)),
    )
    for ours, reference in (
        (transform_points_torch, transform_points),
        (transform_vectors_torch, transform_vectors),
    ):
        npt.assert_allclose(ours(matrix, torch.from_numpy(points)), reference(matrix, points), atol=1e-12)
        assert ours(matrix, torch.from_numpy(points).float()).dtype == torch.float32


def test_the_shape_is_the_size_in_array_order() -> None:
    assert ImageGeometry((3, 4, 5)).shape == (5, 4, 3)


def test_the_centre_is_the_mean_of_the_corners_and_the_extent_their_distance(
    oblique_geometry: ImageGeometry,
) -> None:
    corners = oblique_geometry.corners()
    npt.assert_allclose(oblique_geometry.centre, corners.mean(0), atol=1e-9)
    edges = [np.linalg.norm(corners[n] - corners[0]) for n in (1, 2, 4)]
    npt.assert_allclose(oblique_geometry.extent, edges, atol=1e-9)
    npt.assert_allclose(oblique_geometry.to_index(corners[0]), -0.5, atol=1e-9)


@examples(max_examples=15)
@given(seeds)
def test_a_cropped_grid_has_the_same_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng)
    start, size = rng.integers(-3, 4, 3), rng.integers(1, 9, 3)  # inside and beyond
    part = geometry.cropped(start.tolist(), size.tolist())
    index = random_index(rng, part)
    npt.assert_allclose(part.to_lps(index), geometry.to_lps(index + start), atol=1e-9)
    assert part.size == tuple(size)


@examples(max_examples=15)
@given(seeds)
def test_a_coarsened_grid_has_its_centres_in_the_middle_of_the_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng)
    factors = rng.integers(1, 5, 3)
    coarse = geometry.coarsened(factors.tolist())
    block = np.stack(np.meshgrid(*[np.arange(f) for f in factors]), -1).reshape(-1, 3)
    which = rng.integers(0, 3, 3)
    npt.assert_allclose(coarse.to_lps(which), geometry.to_lps(block + which * factors).mean(0), atol=1e-9)
    covered = np.multiply(coarse.size, factors)
    assert (covered >= geometry.size).all()
    assert (covered - factors < geometry.size).all()
    npt.assert_allclose(coarse.corners()[0], geometry.corners()[0], atol=1e-9)


@pytest.mark.parametrize("max_points", [1, 50, 1 << 20])
def test_slabs_visit_every_voxel_once(max_points: int, oblique_geometry: ImageGeometry) -> None:
    points, seen = (
        torch.zeros((*oblique_geometry.shape, 3), dtype=torch.float64),
        torch.zeros(oblique_geometry.shape),
    )
    for rows, slab in slabs(oblique_geometry, max_points):
        points[rows], seen[rows] = slab, seen[rows] + 1
    assert bool((seen == 1).all())
    for k, j, i in ((0, 0, 0), (10, 8, 6), (3, 1, 5)):
        npt.assert_allclose(points[k, j, i], oblique_geometry.to_lps((i, j, k)), atol=1e-9)


def test_grids_are_close_when_all_their_corners_are(oblique_geometry: ImageGeometry) -> None:
    def moved(by: float) -> ImageGeometry:
        origin = (oblique_geometry.origin[0] + by, *oblique_geometry.origin[1:])
        return ImageGeometry(
            oblique_geometry.size, oblique_geometry.spacing, origin, oblique_geometry.direction
        )

    assert oblique_geometry.is_close(moved(5e-4))
    assert not oblique_geometry.is_close(moved(2e-3))
    assert oblique_geometry.is_close(moved(2e-3), tolerance_mm=1e-2)
    finer = ImageGeometry(
        oblique_geometry.size, (1.5, 2.0, 0.76), oblique_geometry.origin, oblique_geometry.direction
    )
    assert not oblique_geometry.is_close(finer)
    assert not oblique_geometry.is_close(oblique_geometry.cropped((0, 0, 0), (7, 9, 10)))


def test_numbers_of_any_kind_become_plain_tuples_so_that_equal_grids_are_equal() -> None:
    plain = ImageGeometry((2, 3, 4), (1.0, 2.0, 3.0))
    rows = np.eye(3)
    made = ImageGeometry(
        tuple(np.array([2, 3, 4])), tuple(np.array([1, 2, 3], np.float32)), direction=tuple(map(tuple, rows))
    )
    assert made == plain
    assert hash(made) == hash(plain)
    assert type(made.size[0]) is int
    assert type(made.spacing[0]) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (4, 0, 4)}, "size.*at least 1 voxel"),
        ({"size": (4, 4)}, "size.*three counts"),
        ({"size": (4, 4.5, 4)}, "size.*whole numbers"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing.*positive"),
        ({"spacing": (1.0, -1.0, 1.0)}, "spacing.*positive"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "spacing.*finite"),
        ({"origin": (1.0, float("inf"), 1.0)}, "origin.*finite"),
        ({"origin": (1.0, 2.0)}, "origin.*three"),
        ({"direction": ((1.0, 0, 0), (0, 1.0, 0))}, "direction has 6 numbers"),
        ({"direction": ((1.0, 0, 0), (1.0, 0, 0), (0, 0, 1.0))}, "direction.*singular"),
        ({"direction": ((0.0,) * 3,) * 3}, "direction.*singular"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageGeometry(**({"size": (4, 4, 4)} | changes))


def test_one_slice_has_no_cube_but_every_other_frame() -> None:
    slice_ = ImageGeometry((5, 6, 1), (1.0, 1.0, 8.0))
    with pytest.raises(InputError, match="cube coordinates need 2 voxels"):
        slice_.matrix(Frame.LPS, Frame.CUBE)
    npt.assert_allclose(slice_.to_index(slice_.to_lps((1.0, 2.0, 0.0))), (1, 2, 0), atol=1e-12)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_reordering_to_ras_keeps_every_voxel_where_it_is(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    tilt = np.linalg.qr(np.eye(3) + 0.2 * np.arange(9).reshape(3, 3) / 8)[0]
    tilt = tilt * np.sign(np.diag(tilt))
    direction = tilt[:, list(order)] * np.asarray(signs)
    grid = ImageGeometry((4, 5, 6), (1.0, 2.0, 3.0), (7.0, -8.0, 9.0), tuple(tuple(row) for row in direction))
    ras = grid.reordered_to_ras()
    axes = np.asarray(ras.direction) * np.array([[-1.0], [-1.0], [1.0]])
    assert (np.diag(axes) > 0.8).all()
    before = {tuple(np.round(p, 6)) for _, points in slabs(grid) for p in points.reshape(-1, 3).numpy()}
    after = {tuple(np.round(p, 6)) for _, points in slabs(ras) for p in points.reshape(-1, 3).numpy()}
    assert before == after


@examples(max_examples=25)
@given(seeds)
def test_a_grown_grid_is_the_smallest_of_whole_voxels_that_spans_the_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid, beyond = random_geometry(rng), float(rng.choice([0.0, 0.5]))
    points = grid.to_lps(random_index(rng, grid) * rng.uniform(0.5, 2.5) - rng.uniform(0, 6, 3))
    first, last = grid.index_range(points, beyond)
    grown = grid.spanning(first, last)
    index, end = grown.to_index(points), np.subtract(grown.size, 1)
    assert (index >= -beyond - 1e-5).all()
    assert (index <= end + beyond + 1e-5).all()
    for axis in range(3):  # one voxel less on any side would not do, unless that is the grid's own
        assert first[axis] == 0 or index[:, axis].min() < 1 - beyond + 1e-5
        assert last[axis] == grid.size[axis] - 1 or index[:, axis].max() > end[axis] - 1 + beyond - 1e-5
    npt.assert_allclose(grown.to_lps(-np.asarray(first)), grid.origin, atol=1e-9)


def test_samples_reach_from_edge_to_edge(oblique_geometry: ImageGeometry) -> None:
    index = oblique_geometry.to_index(oblique_geometry.samples(5))
    assert index.shape == (125, 3)
    npt.assert_allclose(index.min(0), -0.5, atol=1e-9)
    npt.assert_allclose(index.max(0), np.asarray(oblique_geometry.size) - 0.5, atol=1e-9)
    assert len(np.unique(index.round(6), axis=0)) == 125


def test_right_angles_are_told_from_others(oblique_geometry: ImageGeometry) -> None:
    assert oblique_geometry.has_right_angles
    sheared = ImageGeometry((3, 3, 3), direction=((1.0, 0.1, 0.0), (0.0, 0.995, 0.0), (0.0, 0.0, 1.0)))
    assert not sheared.has_right_angles
