"""Transform nodes and the worker's files say the same about every point, in both directions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import slicer
import vtk

from desktop.nodes import (
    applied,
    bentNode,
    driven,
    exact,
    linearNode,
    longestStep,
    pointsIn,
    rigid,
    scaled,
    sheared,
    sitkPoints,
    state,
    volumeNode,
)
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry, lps_to_ras
from pddnet.job import RegisterRequest, read_request, write_request
from pddnet.job_files import AffineFile, FieldFile, ImageFile
from PDDRegistrationLib import mrml_conversion as conversion


def written(folder, geometry, seed=7):
    """A file of smooth displacements of some mm on a grid, as the worker writes it."""
    k, j, i = np.indices(geometry.shape)
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [
        np.sin(0.5 * i + phases[0]) * 6,
        np.cos(0.4 * j + phases[1]) * 4,
        np.sin(0.3 * (i + k) + phases[2]) * 5,
    ]
    np.save(folder / "displacement.npy", np.stack(waves, axis=-1).astype(np.float32))
    return ImageFile("displacement.npy", geometry)


def through(node, points_lps):
    """Points through a node's "from parent" direction."""
    transform = node.GetTransformFromParent()
    return np.array(
        [lps_to_ras(np.array(transform.TransformPoint(p))) for p in lps_to_ras(points_lps).tolist()]
    )


@pytest.mark.parametrize("shear", [False, True])
def test_the_grid_transform_moves_points_as_the_field_does_in_simpleitk(tmp_path, oblique_geometry, shear):
    geometry = oblique_geometry
    if shear:
        geometry = replace(
            geometry, direction=np.asarray(geometry.direction) @ [[1, 0.3, 0], [0, 1, 0], [0, 0, 1]]
        )
    file = written(tmp_path, geometry)
    node = driven(conversion.makeGridTransform(file, tmp_path))
    assert node.GetScene() is None
    points = pointsIn(geometry)
    expected = sitkPoints(file, points, tmp_path)
    assert np.abs(through(node, points) - expected).max() < 1e-3
    assert np.abs(expected - points).max() > 3


@pytest.mark.parametrize("fault", ["sign", "axes", "direction"])
def test_a_fault_of_the_contract_would_be_seen(tmp_path, oblique_geometry, fault):
    file = written(tmp_path, oblique_geometry)
    points = pointsIn(oblique_geometry)
    expected = sitkPoints(file, points, tmp_path)
    vectors = np.load(tmp_path / file.array)
    if fault == "sign":
        np.save(tmp_path / file.array, -vectors)
    elif fault == "axes":
        np.save(tmp_path / file.array, vectors[..., ::-1])
    node = driven(conversion.makeGridTransform(file, tmp_path))
    moved = through(node, points)
    if fault == "direction":
        transform = node.GetTransformToParent()
        moved = np.array(
            [lps_to_ras(np.array(transform.TransformPoint(p))) for p in lps_to_ras(points).tolist()]
        )
    assert np.abs(moved - expected).max() > 1


def test_a_volume_under_the_transform_is_warped_as_slicer_warps_it(scene, tmp_path, oblique_geometry):
    """Against an independent way: resampling by the Volumes logic, voxel by voxel, where the field is the truth."""
    moving = volumeNode(
        scene, oblique_geometry, np.indices(oblique_geometry.shape)[2].astype(np.float32) * 10
    )
    fixed = volumeNode(scene, oblique_geometry)
    file = written(tmp_path, oblique_geometry)
    node = scene.AddNode(driven(conversion.makeGridTransform(file, tmp_path)))
    moving.SetAndObserveTransformNodeID(node.GetID())
    out = slicer.vtkSlicerVolumesLogic.ResampleVolumeToReferenceVolume(moving, fixed)
    warped = slicer.util.arrayFromVolume(out)
    k, j, i = (axis.ravel() for axis in np.indices(oblique_geometry.shape))
    index = oblique_geometry.to_index(
        oblique_geometry.to_lps(np.stack([i, j, k], axis=-1)) + np.load(tmp_path / file.array).reshape(-1, 3)
    )
    inside = ((index > 0) & (index < np.asarray(oblique_geometry.size) - 1)).all(axis=1)
    assert inside.sum() > 40
    assert np.abs(warped.ravel()[inside] - index[inside, 0] * 10).max() < 0.05


def test_displacements_of_another_kind_are_refused(tmp_path, oblique_geometry):
    file = written(tmp_path, oblique_geometry)
    np.save(tmp_path / file.array, np.load(tmp_path / file.array).astype(np.float64))
    with pytest.raises(InputError, match="float32"):
        driven(conversion.makeGridTransform(file, tmp_path))


@pytest.mark.parametrize("matrix", [rigid(), scaled(), sheared()], ids=["rigid", "scaled", "sheared"])
def test_a_linear_initial_transform_is_a_matrix_from_fixed_to_moving(
    scene, tmp_path, oblique_geometry, matrix
):
    fixed, node = volumeNode(scene, oblique_geometry), linearNode(scene, matrix)
    file = driven(conversion.exportTransform(node, fixed, tmp_path, "initial"))
    assert isinstance(file, AffineFile)
    points = pointsIn(oblique_geometry)
    moved = points @ np.array(file.matrix)[:3, :3].T + np.array(file.matrix)[:3, 3]
    assert (
        np.abs(moved - applied(np.linalg.inv(matrix), points)).max() < 1e-9
    )  # to parent takes moving to fixed
    assert np.abs(moved - exact(node, points, toWorld=False)).max() < 1e-9
    assert np.abs(moved - exact(node, points, toWorld=True)).max() > 1


@pytest.mark.parametrize("parent", [None, rigid(), sheared()], ids=["world", "rigid", "sheared"])
def test_a_bent_initial_transform_is_a_field_over_the_fixed_volume(scene, tmp_path, oblique_geometry, parent):
    fixed = volumeNode(scene, oblique_geometry)
    points = pointsIn(oblique_geometry)
    if parent is not None:
        fixed.SetAndObserveTransformNodeID(linearNode(scene, parent).GetID())
        points = applied(parent, points)
    node = bentNode(scene, lps_to_ras(points.mean(axis=0)), amplitude_mm=15)
    file = driven(conversion.exportTransform(node, fixed, tmp_path, "initial"))
    assert isinstance(file, FieldFile)
    truth = exact(node, points, toWorld=False)
    assert np.abs(truth - points).max() > 1
    assert np.linalg.norm(sitkPoints(file, points, tmp_path) - truth, axis=1).max() < 0.1


LARGE = ImageGeometry(
    (60, 70, 40), (4.0, 3.0, 5.5), (20.0, -80.0, 60.0), ((0.8, -0.6, 0), (0.6, 0.8, 0), (0, 0, 1))
)


@pytest.mark.parametrize("above", [None, sheared()], ids=["alone", "under a shear"])
def test_bent_parents_are_sampled_both_ways_to_a_tenth_of_a_millimetre(scene, tmp_path, above):
    fixed = volumeNode(scene, LARGE)
    node = bentNode(scene, lps_to_ras(LARGE.centre), amplitude_mm=8)
    if above is not None:
        node.SetAndObserveTransformNodeID(linearNode(scene, above).GetID())
    fixed.SetAndObserveTransformNodeID(node.GetID())
    before = state(node, fixed)
    parents = driven(conversion.exportParents(fixed, volumeNode(scene, LARGE), tmp_path))
    assert parents.moving_to_world is None
    local = pointsIn(LARGE, 1500)
    world = exact(node, local, toWorld=True)
    there = sitkPoints(parents.fixed_to_world, local, tmp_path)
    back = sitkPoints(parents.world_to_fixed, world, tmp_path)
    assert np.linalg.norm(there - world, axis=1).max() < 0.1
    assert np.linalg.norm(back - local, axis=1).max() < 0.1
    assert np.linalg.norm(world - local, axis=1).max() > 4
    assert state(node, fixed) == before
    for file in (parents.fixed_to_world, parents.world_to_fixed):
        assert np.load(tmp_path / file.array).dtype == np.float32
        assert np.prod(file.geometry.shape) <= 3_000_000


@pytest.mark.parametrize(("amplitude_mm", "folds"), [(12, False), (150, True)])
@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_a_parent_that_folds_the_scan_over_itself_is_refused(
    scene, tmp_path, capfd, amplitude_mm, folds, role
):
    """Its other direction is a search that ends anywhere, after minutes and with a message for each point."""
    scans = {"fixed": volumeNode(scene, LARGE), "moving": volumeNode(scene, LARGE)}
    node = bentNode(scene, lps_to_ras(LARGE.centre), amplitude_mm=amplitude_mm)
    scans[role].SetAndObserveTransformNodeID(node.GetID())
    scans[role].SetName("Folded")
    if folds:
        with pytest.raises(InputError, match="Folded is under a transform that folds"):
            driven(conversion.exportParents(**scans, folder=tmp_path))
        assert list(tmp_path.iterdir()) == []
    else:
        driven(conversion.exportParents(**scans, folder=tmp_path))
    capfd.readouterr()  # VTK's complaints


def test_a_grid_transform_as_parent_is_sampled_too(scene, tmp_path):
    coarse = ImageGeometry((16, 16, 16), (20.0, 20.0, 20.0), tuple(LARGE.centre - 150))
    node = scene.AddNode(driven(conversion.makeGridTransform(written(tmp_path, coarse), tmp_path)))
    moving = volumeNode(scene, LARGE)
    moving.SetAndObserveTransformNodeID(node.GetID())
    parents = driven(conversion.exportParents(volumeNode(scene, LARGE), moving, tmp_path))
    world = exact(node, pointsIn(LARGE), toWorld=True)
    local = exact(node, world, toWorld=False)
    errors = np.linalg.norm(sitkPoints(parents.world_to_moving, world, tmp_path) - local, axis=1)
    assert errors.max() < 0.1
    errors = np.linalg.norm(sitkPoints(parents.moving_to_world, local, tmp_path) - world, axis=1)
    assert errors.max() < 0.1


def test_the_steps_on_a_whole_body_are_short_and_the_field_good_to_a_tenth_of_a_millimetre(scene, tmp_path):
    whole = ImageGeometry((96, 96, 96), (4.0, 4.0, 4.0), (-100.0, 30.0, -50.0))
    fixed = volumeNode(scene, whole)
    parent = bentNode(scene, lps_to_ras(whole.centre), amplitude_mm=10)
    fixed.SetAndObserveTransformNodeID(parent.GetID())
    assert longestStep(conversion.exportParents(fixed, volumeNode(scene, whole), tmp_path)) < 0.1
    parents = driven(conversion.exportParents(fixed, volumeNode(scene, whole), tmp_path))
    local = pointsIn(whole, 3000)
    world = exact(parent, local, toWorld=True)
    for file, given, truth in (
        (parents.fixed_to_world, local, world),
        (parents.world_to_fixed, world, local),
    ):
        assert np.linalg.norm(sitkPoints(file, given, tmp_path) - truth, axis=1).max() < 0.1


def test_a_smooth_parent_needs_few_points(scene, tmp_path):
    fixed = volumeNode(scene, LARGE)
    gentle = bentNode(scene, lps_to_ras(LARGE.centre), amplitude_mm=2, spacing_mm=80)
    fixed.SetAndObserveTransformNodeID(gentle.GetID())
    parents = driven(conversion.exportParents(fixed, volumeNode(scene, LARGE), tmp_path))
    assert np.prod(parents.fixed_to_world.geometry.shape) < 100_000


def test_the_transforms_survive_a_bundle(scene, tmp_path, oblique_geometry):
    file = written(tmp_path, oblique_geometry)
    node = scene.AddNode(driven(conversion.makeGridTransform(file, tmp_path)))
    node.SetName("to keep")
    points = pointsIn(oblique_geometry)
    before = through(node, points)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    back = scene.GetFirstNodeByName("to keep")
    assert back.GetClassName() == "vtkMRMLGridTransformNode"
    assert np.abs(through(back, points) - before).max() > 1e-2  # Slicer reads it with cubic interpolation
    conversion.interpolateLinearly(back)
    assert np.abs(through(back, points) - before).max() < 1e-4


def test_a_chosen_transform_gets_the_content_and_stays_itself(scene, tmp_path, oblique_geometry):
    file = written(tmp_path, oblique_geometry)
    points = pointsIn(oblique_geometry)
    for kind in ("vtkMRMLGridTransformNode", "vtkMRMLTransformNode"):
        target = scene.AddNewNodeByClass(kind, "mine")
        identity, told = target.GetID(), []
        follower = volumeNode(scene, oblique_geometry)
        follower.SetAndObserveTransformNodeID(identity)
        target.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_arguments, told=told: told.append(1))
        conversion.updateNode(target, driven(conversion.makeGridTransform(file, tmp_path)))
        assert (target.GetID(), follower.GetParentTransformNode()) == (identity, target)
        assert target.GetName().startswith("mine")
        assert np.abs(through(target, points) - sitkPoints(file, points, tmp_path)).max() < 1e-3
        assert len(told) == 1


def test_what_is_exported_is_a_request_the_worker_reads(scene, tmp_path, oblique_geometry):
    fixed = volumeNode(scene, oblique_geometry)
    fixed.SetAndObserveTransformNodeID(bentNode(scene, lps_to_ras(oblique_geometry.centre)).GetID())
    moving = volumeNode(scene, oblique_geometry)
    labels = volumeNode(
        scene, oblique_geometry, np.ones(oblique_geometry.shape, np.uint8), "l", "vtkMRMLLabelMapVolumeNode"
    )
    labels.SetAndObserveTransformNodeID(fixed.GetTransformNodeID())
    request = RegisterRequest(
        fixed=driven(conversion.exportVolume(fixed, tmp_path, "fixed")),
        moving=driven(conversion.exportVolume(moving, tmp_path, "moving")),
        fixed_mask=driven(conversion.exportMask(labels, tmp_path, "mask", fixed)),
        parents=driven(conversion.exportParents(fixed, moving, tmp_path)),
        initial_transform=driven(
            conversion.exportTransform(linearNode(scene, sheared()), fixed, tmp_path, "initial")
        ),
        segmentations=(driven(conversion.exportSegmentation(labels, tmp_path, "s")),),
    )
    write_request(tmp_path, request)
    assert read_request(tmp_path) == request
    assert request.segmentations[0].from_world is not None
