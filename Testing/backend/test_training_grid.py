"""The training grid: scans of any geometry in one box, and displacements back to mm."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from backend.awkward import noise, patches, random_geometry
from pddnet.config import Intensity
from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry, transform_points
from pddnet.interop.simpleitk import to_sitk, transform_to_sitk
from pddnet.learning.grid import TrainingGrid
from pddnet.points import slabs
from pddnet.volume import LabelMap, Volume

GRID = TrainingGrid((14, 12, 10), 2.0, Intensity("divisor", divisor=1.0))


def points_of(grid: ImageGeometry) -> torch.Tensor:
    return torch.cat([points for _, points in slabs(grid)])


def test_the_box_lies_around_the_centre_with_axes_right_anterior_superior(
    oblique_geometry: ImageGeometry,
) -> None:
    box = GRID.geometry(oblique_geometry)
    np.testing.assert_allclose(box.centre, oblique_geometry.centre)
    one, far = box.to_lps(np.zeros(3)), box.to_lps(np.ones(3))
    np.testing.assert_allclose(far - one, [-2.0, -2.0, 2.0])  # LPS
    assert box.size == GRID.size


def test_a_scan_is_brought_onto_the_box_as_simpleitk_does(oblique_geometry: ImageGeometry) -> None:
    fine = TrainingGrid((24, 22, 20), 0.7, GRID.intensity)  # a coarse one averages over blocks first
    scan = noise(np.random.default_rng(1), oblique_geometry)
    found = fine.image(scan)
    assert found.shape == (1, 1, 20, 22, 24)
    box = fine.geometry(oblique_geometry)
    empty = to_sitk(Volume(torch.zeros(box.shape), box))
    expected = sitk.GetArrayFromImage(sitk.Resample(to_sitk(scan), empty, sitk.Transform(), sitk.sitkLinear))
    index = oblique_geometry.to_index(points_of(box).numpy())
    inside = ((index > 0) & (index < np.asarray(oblique_geometry.size) - 1)).all(-1)
    assert inside.sum() > 50
    np.testing.assert_allclose(found[0, 0].numpy()[inside], expected[inside], atol=1e-4)


def test_labels_take_the_nearest_voxel(oblique_geometry: ImageGeometry) -> None:
    labels = patches(np.random.default_rng(2), oblique_geometry)
    found, box = GRID.labels(labels), GRID.geometry(oblique_geometry)
    nearest = np.round(oblique_geometry.to_index(points_of(box).numpy())).astype(int)
    inside = ((nearest >= 0) & (nearest < np.asarray(oblique_geometry.size))).all(-1)
    i, j, k = nearest[inside].T
    agree = labels.data.numpy()[k, j, i] == found.numpy()[inside]
    assert agree.mean() > 0.999  # a point halfway between two voxels may go either way
    assert (found.numpy()[~inside] == 0).all()


def test_a_displacement_becomes_mm_from_fixed_to_moving_points() -> None:
    rng = np.random.default_rng(3)
    fixed, moving = random_geometry(rng), random_geometry(rng)
    normalised = torch.from_numpy(rng.normal(0, 0.1, (1, 3, *GRID.shape)))
    field = GRID.displacement(normalised, fixed, moving)
    here, there = GRID.geometry(fixed), GRID.geometry(moving)
    cube = transform_points(here.matrix(Frame.LPS, Frame.CUBE), points_of(here).numpy())
    displaced = cube + normalised[0].permute(1, 2, 3, 0).numpy()
    expected = transform_points(there.matrix(Frame.CUBE, Frame.LPS), displaced)
    np.testing.assert_allclose(field.apply(points_of(here)).numpy(), expected, atol=1e-3)
    reversed_order = transform_points(
        there.matrix(Frame.CUBE, Frame.LPS), cube + displaced[..., ::-1] - cube[..., ::-1]
    )
    assert np.abs(expected - reversed_order).max() > 0.1
    assert field.fixed_geometry == fixed


def test_simpleitk_warps_by_the_displacement_as_the_cube_does() -> None:
    """An image on the moving box, warped in the cube by grid_sample and in the world by SimpleITK."""
    rng = np.random.default_rng(4)
    fixed, moving = random_geometry(rng), random_geometry(rng)
    here, there = GRID.geometry(fixed), GRID.geometry(moving)
    image = torch.from_numpy(rng.random(GRID.shape, dtype=np.float32))
    normalised = torch.zeros(1, 3, *GRID.shape)
    normalised[0] += torch.tensor([0.11, -0.07, 0.2])[:, None, None, None]
    axes = [torch.linspace(-1, 1, n) for n in GRID.shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    positions = torch.stack((x, y, z), -1)[None] + normalised.permute(0, 2, 3, 4, 1)
    expected = torch.nn.functional.grid_sample(image[None, None], positions, align_corners=True)[0, 0]
    field = GRID.displacement(normalised, fixed, moving)
    empty = to_sitk(Volume(torch.zeros(here.shape), here))
    transform = transform_to_sitk(field)
    found = sitk.Resample(to_sitk(Volume(image, there)), empty, transform, sitk.sitkLinear)
    inside = (positions[0].abs() < 1).all(-1).numpy()
    np.testing.assert_allclose(sitk.GetArrayFromImage(found)[inside], expected.numpy()[inside], atol=2e-4)


def test_a_grid_survives_json_and_nonsense_is_refused() -> None:
    assert TrainingGrid.of(GRID.as_json()) == GRID
    with pytest.raises(InputError, match="name no training grid"):
        TrainingGrid.of({})
    with pytest.raises(InputError, match="unknown entry colour"):
        TrainingGrid.of({**GRID.as_json(), "colour": 1})
    for size, spacing in (((4, 10, 10), 1.0), ((10, 9, 10), 1.0), ((10, 10, 10), 0.0)):
        with pytest.raises(InputError, match="three even sizes of at least 8 voxels and a spacing above 0"):
            TrainingGrid(size, spacing)
    with pytest.raises(InputError, match="is needed on this grid"):
        GRID.displacement(
            torch.zeros(1, 3, 4, 4, 4),
            random_geometry(np.random.default_rng(0)),
            GRID.geometry(random_geometry(np.random.default_rng(0))),
        )


def test_a_scan_that_cannot_be_used_is_refused_with_its_role() -> None:
    grid = random_geometry(np.random.default_rng(0))
    with pytest.raises(InputError, match="the case 7 scan has the value 0 everywhere"):
        GRID.image(Volume(torch.zeros(grid.shape), grid), "case 7")
    assert GRID.labels(LabelMap(torch.ones(grid.shape), grid)).sum() > 0
