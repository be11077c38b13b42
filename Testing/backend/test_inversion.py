"""The inverse of a displacement field against closed forms, and its residual where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.awkward import affine_field, covering_geometry, random_field
from pddnet import inversion as module
from pddnet.geometry import ImageGeometry, transform_points
from pddnet.inversion import invert, residual_without_inverse
from pddnet.metrics import inverse_residual
from pddnet.points import slabs
from pddnet.warp import DisplacementField


def points_of(geometry: ImageGeometry) -> torch.Tensor:
    return torch.cat([points for _, points in slabs(geometry)])


def inner(geometry: ImageGeometry, margin: int) -> ImageGeometry:
    return geometry.cropped((margin,) * 3, tuple(n - 2 * margin for n in geometry.size))


def about(centre: np.ndarray, linear: np.ndarray, shift: tuple[float, float, float]) -> np.ndarray:
    """The 4x4 matrix of a linear map about a point, then a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre + shift
    return matrix


def turned(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def wave(geometry: ImageGeometry, mm: float) -> DisplacementField:
    """A smooth field, periods of some 40 mm, on a grid."""
    points = points_of(geometry)
    phase = (points - torch.from_numpy(geometry.centre)) @ torch.randn(3, 3, dtype=torch.float64) * 0.1
    return DisplacementField(mm * torch.sin(phase), geometry, geometry)


@pytest.mark.parametrize(
    ("linear", "shift"),
    [
        (np.eye(3), (3.0, -2.0, 1.5)),
        (1.1 * turned(8), (0.5, 0.0, -0.5)),
        (np.diag([0.8, 1.2, 1.05]), (0.0, 1.0, 0.0)),
    ],
)
def test_the_inverse_of_an_affine_field_is_that_of_its_matrix(
    oblique_geometry: ImageGeometry, linear: np.ndarray, shift: tuple[float, float, float]
) -> None:
    wide = oblique_geometry.cropped((-8, -8, -8), tuple(n + 16 for n in oblique_geometry.size))
    matrix = about(oblique_geometry.centre, linear, shift)
    inverse, residual = invert(affine_field(matrix, wide), oblique_geometry)
    points = points_of(oblique_geometry)
    expected = transform_points(np.linalg.inv(matrix), points.numpy())
    assert np.abs(inverse.apply(points).numpy() - expected).max() < 0.01
    assert residual.data.max() < 0.01
    assert (
        np.abs(transform_points(matrix, points.numpy()) - expected).max() > 1
    )  # the map itself is no inverse


def test_a_smooth_field_and_its_inverse_undo_each_other_both_ways(oblique_geometry: ImageGeometry) -> None:
    coarse = covering_geometry(oblique_geometry, (2, 2, 2))
    wide = coarse.cropped((-3, -3, -3), tuple(n + 6 for n in coarse.size))
    field = wave(wide, 1.0)
    inverse, residual = invert(field, oblique_geometry)
    points = points_of(oblique_geometry)
    assert (field.apply(inverse.apply(points)) - points).norm(dim=-1).max() < 0.01
    assert residual.data.max() < 0.01
    assert (field.apply(points) - points).norm(dim=-1).max() > 0.3


def test_the_inverse_of_a_finely_sampled_smooth_field_undoes_it_between_grid_points() -> None:
    grid = ImageGeometry((24, 20, 28), (0.5, 0.6, 0.4), (10.0, -20.0, 30.0))
    field = wave(grid, 0.4)
    inverse, _ = invert(field, grid)
    points = points_of(inner(grid, 4)) + 0.13  # not on the grid
    assert (inverse.apply(field.apply(points)) - points).norm(dim=-1).max() < 0.01
    twice, _ = invert(inverse, grid)
    assert (twice.apply(points) - field.apply(points)).norm(dim=-1).max() < 0.02


def test_the_residual_is_the_distance_left_in_mm(oblique_geometry: ImageGeometry) -> None:
    field = wave(covering_geometry(oblique_geometry), 3.0)
    inverse, residual = invert(field, oblique_geometry)
    points = points_of(oblique_geometry)
    left = (field.apply(points + inverse.vectors.double()) - points).norm(dim=-1)
    torch.testing.assert_close(residual.data.double(), left, atol=1e-4, rtol=1e-3)


def test_the_residual_is_large_where_a_field_folds_and_small_where_it_does_not() -> None:
    grid = ImageGeometry((16, 14, 12))
    vectors = 0.3 * torch.randn(*grid.shape, 3).clamp(-1, 1)
    vectors[..., 8:, :] = 4 * torch.randn(*grid.shape, 3)[..., 8:, :]  # folds everywhere
    inverse, residual = invert(DisplacementField(vectors, grid), grid)
    assert torch.isfinite(inverse.vectors).all()
    assert (residual.data[..., 8:] > 0.5).any()
    assert residual.data[..., :3].max() < 0.01


def test_a_fold_does_not_spoil_what_is_around_it() -> None:
    grid = ImageGeometry((20, 12, 12))
    vectors = torch.zeros(*grid.shape, 3)
    vectors[6, 6, 10] = torch.tensor([2.5, 0.0, 0.0])
    inverse, residual = invert(DisplacementField(vectors, grid), grid)
    assert torch.isfinite(inverse.vectors).all()
    assert residual.data[..., :7].max() < 0.01
    assert residual.data[:4].max() < 0.01


def test_pieces_give_what_the_whole_gives_and_a_caller_can_stop(
    monkeypatch: pytest.MonkeyPatch, oblique_geometry: ImageGeometry
) -> None:
    field = wave(covering_geometry(oblique_geometry), 1.0)
    whole, _ = invert(field, oblique_geometry)

    monkeypatch.setattr(module, "slabs", lambda grid, _: slabs(grid, 100))
    calls: list[None] = []
    pieces, _ = invert(field, oblique_geometry, lambda: calls.append(None))
    torch.testing.assert_close(pieces.vectors, whole.vectors, atol=1e-4, rtol=0)
    assert len(calls) == 12  # the first guess on coarser points, and eleven slabs

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(field, oblique_geometry, stop)
    monkeypatch.setattr(module, "_DERIVATIVES", 0)
    monkeypatch.setattr(module, "_ITERATIONS", 0)  # without Newton's steps it would be the first guess
    assert invert(field, oblique_geometry)[1].data.max() > 0.02


def test_the_residual_without_the_inverse_is_that_between_the_inverses_points(
    oblique_geometry: ImageGeometry,
) -> None:
    field = wave(covering_geometry(oblique_geometry), 1.0)
    grid = oblique_geometry.cropped((0, 0, 0), (6, 10, 10))
    inverse, _ = invert(field, grid)
    cells = np.stack(np.meshgrid([0, 4], [0, 4, 8], [0, 4, 8], indexing="ij"), -1).reshape(-1, 3)
    middle = torch.as_tensor(grid.to_lps(cells + 0.5))
    expected = (field.apply(inverse.apply(middle)) - middle).norm(dim=-1)
    assert expected.max() > 0.02
    torch.testing.assert_close(
        residual_without_inverse(field, grid), expected, atol=2e-3, rtol=0
    )  # Newton's tolerance twice


def test_the_residual_of_a_shift_is_nothing_and_of_a_wrong_inverse_the_error() -> None:
    grid = ImageGeometry((8, 9, 10), (2.0, 2.0, 3.0))
    shift = torch.tensor([3.0, -2.0, 1.0]).expand((*grid.shape, 3))
    field = DisplacementField(shift, grid)
    assert residual_without_inverse(field, grid).max() < 1e-4
    assert inverse_residual(DisplacementField(-shift, grid), field).data.max() < 1e-5
    torch.testing.assert_close(
        inverse_residual(DisplacementField(-0.5 * shift, grid), field).data,
        torch.full((5, 4, 4), 0.5 * 14**0.5),
    )


def test_quick_steps_end_where_careful_ones_do_and_leave_folds_to_them(
    oblique_geometry: ImageGeometry,
) -> None:
    smooth = wave(covering_geometry(oblique_geometry), 1.0)
    y = points_of(oblique_geometry).reshape(-1, 3)
    quick, left = module._solve_quickly(smooth, y, y)
    careful, _ = module._solve_carefully(smooth, y, y.clone())
    assert float(left.max()) < 1e-3
    torch.testing.assert_close(quick, careful, atol=2e-3, rtol=0)
    assert float((quick - y).norm(dim=-1).max()) > 0.5

    folded = random_field(np.random.default_rng(2), covering_geometry(oblique_geometry), mm=6.0)
    quick, left = module._solve_quickly(folded, y, y)
    missed = (folded.apply(quick) - y).norm(dim=-1)
    torch.testing.assert_close(left, missed, atol=1e-3, rtol=0)  # what it says it misses by is true
    assert float(left.max()) > 0.1
    both, distance = module._solve(folded, y, y.clone())
    assert (distance <= left).all()
    assert (distance < left).any()
    torch.testing.assert_close(distance, (folded.apply(both) - y).norm(dim=-1), atol=1e-3, rtol=0)
