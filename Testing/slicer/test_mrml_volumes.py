"""Volumes go to the worker's files and come back where they were, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from desktop.nodes import (
    applied,
    bentNode,
    driven,
    linearNode,
    longestStep,
    pointsIn,
    rigid,
    scaled,
    sheared,
    sitkImage,
    state,
    volumeNode,
)
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.job_files import load_array
from PDDRegistrationLib import mrml_conversion as conversion
from PDDRegistrationLib.mrml_geometry import ijkToRas

TYPES = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_volume_comes_back_to_the_bit_and_lies_where_the_fixed_one_lies(
    scene, tmp_path, oblique_geometry, dtype
):
    voxels = np.random.default_rng(0).integers(0, 100, oblique_geometry.shape).astype(dtype)
    node = volumeNode(scene, oblique_geometry, voxels)
    image = driven(conversion.exportVolume(node, tmp_path, "fixed"))
    assert (load_array(tmp_path, image, "fixed") == voxels).all()
    made = driven(conversion.makeVolume(image, tmp_path, node))
    assert made.GetScene() is None
    assert made.GetImageData().GetScalarType() == node.GetImageData().GetScalarType()
    assert (slicer.util.arrayFromVolume(made) == voxels).all()
    assert (ijkToRas(made) == ijkToRas(node)).all()
    assert made.GetSpacing() == node.GetSpacing()


def test_the_geometry_is_that_of_the_same_volume_in_simpleitk(scene, tmp_path, oblique_geometry):
    node = volumeNode(scene, oblique_geometry)
    path = tmp_path / "volume.nrrd"
    assert slicer.util.saveNode(node, str(path), {})
    read = sitk.ReadImage(str(path))
    geometry = driven(conversion.exportVolume(node, tmp_path, "fixed")).geometry
    index = np.random.default_rng(0).uniform(-3, 12, (50, 3))
    expected = [read.TransformContinuousIndexToPhysicalPoint(i) for i in index.tolist()]
    assert np.abs(geometry.to_lps(index) - expected).max() < 1e-5
    wrong = ImageGeometry(geometry.size, geometry.spacing, geometry.origin, np.asarray(geometry.direction).T)
    assert np.abs(wrong.to_lps(index) - expected).max() > 1


@pytest.mark.parametrize("matrix", [rigid(), scaled(), sheared()], ids=["rigid", "scaled", "sheared"])
def test_a_linear_parent_is_baked_into_the_geometry(scene, tmp_path, oblique_geometry, matrix):
    node = volumeNode(scene, oblique_geometry)
    above = sheared() @ scaled()
    outer, inner = linearNode(scene, above), linearNode(scene, matrix)
    inner.SetAndObserveTransformNodeID(outer.GetID())
    node.SetAndObserveTransformNodeID(inner.GetID())
    geometry = driven(conversion.exportVolume(node, tmp_path, "fixed")).geometry
    index = np.random.default_rng(0).uniform(0, 12, (50, 3))
    world = applied(above @ matrix, oblique_geometry.to_lps(index))
    assert np.abs(geometry.to_lps(index) - world).max() < 1e-9
    assert np.abs(geometry.to_lps(index) - applied(matrix @ above, oblique_geometry.to_lps(index))).max() > 1
    parents = driven(conversion.exportParents(node, node, tmp_path))
    assert parents.fixed_to_world is None
    assert parents.world_to_moving is None


def test_under_a_bent_parent_the_geometry_is_the_nodes_own(scene, tmp_path, oblique_geometry):
    node = volumeNode(scene, oblique_geometry)
    node.SetAndObserveTransformNodeID(bentNode(scene, oblique_geometry.centre * (-1, -1, 1)).GetID())
    assert driven(conversion.exportVolume(node, tmp_path, "fixed")).geometry.is_close(oblique_geometry, 1e-9)


def test_simpleitk_resamples_the_exported_volume_as_slicer_shows_it(scene, tmp_path, oblique_geometry):
    node = volumeNode(scene, oblique_geometry)
    node.SetAndObserveTransformNodeID(linearNode(scene, rigid()).GetID())
    image = driven(conversion.exportVolume(node, tmp_path, "moving"))
    moving = sitkImage(np.load(tmp_path / image.array).astype(np.float32), image.geometry)
    points = applied(rigid(), pointsIn(oblique_geometry, 50))
    here = sitkImage(slicer.util.arrayFromVolume(node).astype(np.float32), oblique_geometry)
    back = applied(np.linalg.inv(rigid()), points)
    for world, local in zip(points.tolist(), back.tolist(), strict=True):
        assert moving.EvaluateAtPhysicalPoint(world) == pytest.approx(
            here.EvaluateAtPhysicalPoint(local), abs=1e-2
        )


def test_reading_changes_nothing(scene, tmp_path, oblique_geometry):
    node, parent = volumeNode(scene, oblique_geometry), linearNode(scene, rigid())
    node.SetAndObserveTransformNodeID(parent.GetID())
    before = state(node, parent)
    driven(conversion.exportVolume(node, tmp_path, "fixed"))
    driven(conversion.exportMask(node, tmp_path, "mask", node))
    driven(conversion.exportTransform(parent, node, tmp_path, "initial"))
    assert state(node, parent) == before
    node.Modified()
    assert state(node, parent) != before


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda node: node.SetAndObserveImageData(None), "no voxels"),
        (lambda node: node.GetImageData().AllocateScalars(vtk.VTK_SHORT, 3), "3 numbers"),
        (lambda node: node.SetSpacing(1, 0, 1), "no size"),
        (lambda node: node.SetIJKToRASDirections(1, 1, 0, 0, 0, 0, 0, 0, 1), "singular"),
    ],
)
def test_a_volume_that_cannot_be_registered_is_refused_by_name(
    scene, tmp_path, oblique_geometry, prepare, said
):
    node = volumeNode(scene, oblique_geometry, name="knee")
    prepare(node)
    with pytest.raises(InputError, match=f"knee.*{said}"):
        driven(conversion.exportVolume(node, tmp_path, "fixed"))


def test_a_damaged_result_is_refused(scene, tmp_path, oblique_geometry):
    node = volumeNode(scene, oblique_geometry)
    image = driven(conversion.exportVolume(node, tmp_path, "fixed"))
    path = tmp_path / image.array
    whole = path.read_bytes()
    for content, said in (
        (whole[:-5], "ends 5 bytes early"),
        (b"", "cannot be read"),
        (b"x" * 500, "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            driven(conversion.makeVolume(image, tmp_path, node))
    np.save(path, np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match="were announced"):
        driven(conversion.makeVolume(image, tmp_path, node))


def test_a_fixed_volume_that_has_another_grid_by_now_is_refused(scene, tmp_path, oblique_geometry):
    node = volumeNode(scene, oblique_geometry)
    image = driven(conversion.exportVolume(node, tmp_path, "fixed"))
    slicer.util.updateVolumeFromArray(node, np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match="register again"):
        driven(conversion.makeVolume(image, tmp_path, node))


def test_the_steps_on_a_large_volume_are_short_and_may_stop_anywhere(scene, tmp_path):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (256, 256, 256), np.int16)
    node = volumeNode(scene, ImageGeometry((256, 256, 256)), voxels)
    longest = min(longestStep(conversion.exportVolume(node, tmp_path, "fixed")) for _try in range(3))
    assert longest < 0.1
    image = driven(conversion.exportVolume(node, tmp_path, "fixed"))
    longest = min(longestStep(conversion.makeVolume(image, tmp_path, node)) for _try in range(3))
    assert longest < 0.1
    stopped = conversion.exportVolume(node, tmp_path, "stopped")
    next(stopped)
    stopped.close()
    assert (tmp_path / "stopped.npy").stat().st_size < voxels.nbytes
    (tmp_path / "stopped.npy").unlink()


def test_a_chosen_output_gets_the_content_and_stays_itself(scene, tmp_path, oblique_geometry):
    node = volumeNode(scene, oblique_geometry)
    image = driven(conversion.exportVolume(node, tmp_path, "fixed"))
    target = volumeNode(scene, ImageGeometry((3, 4, 5)), name="mine")
    target.CreateDefaultDisplayNodes()
    target.SetAttribute("kept", "yes")
    identity, display = target.GetID(), target.GetDisplayNode()
    parent = linearNode(scene, rigid())
    target.SetAndObserveTransformNodeID(parent.GetID())
    told = []
    target.AddObserver("ModifiedEvent", lambda *_arguments: told.append(1))
    conversion.updateNode(target, driven(conversion.makeVolume(image, tmp_path, node)))
    assert (slicer.util.arrayFromVolume(target) == slicer.util.arrayFromVolume(node)).all()
    assert (ijkToRas(target) == ijkToRas(node)).all()
    assert (target.GetName(), target.GetID(), target.GetAttribute("kept")) == ("mine", identity, "yes")
    assert target.GetDisplayNode() is display
    assert target.GetParentTransformNode() is parent
    assert len(told) == 1


def test_an_output_of_another_kind_is_refused(scene, tmp_path, oblique_geometry):
    node = volumeNode(scene, oblique_geometry)
    image = driven(conversion.exportVolume(node, tmp_path, "fixed"))
    made = driven(conversion.makeVolume(image, tmp_path, node))
    with pytest.raises(InputError, match="another output node"):
        conversion.updateNode(linearNode(scene, rigid()), made)


def test_landmarks_are_those_with_a_position_in_the_world(scene):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    for point in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        node.AddControlPoint(*point)
    node.UnsetNthControlPointPosition(1)
    node.SetAndObserveTransformNodeID(linearNode(scene, rigid()).GetID())
    expected = applied(rigid(), np.array([(-1, -2, 3), (-7, -8, 9.0)]))
    assert np.abs(conversion.landmarkPoints(node) - expected).max() < 1e-9
    assert conversion.landmarkPoints(scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")).shape == (0, 3)


def test_a_real_scan_comes_back_where_simpleitk_has_it(scene, tmp_path, shared):
    path = shared / "data" / "thorax-ct" / "lung-ct-small.mha"
    node = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), "lung")
    read = sitk.ReadImage(str(path))
    image = driven(conversion.exportVolume(node, tmp_path, "fixed"))
    assert (np.load(tmp_path / image.array) == sitk.GetArrayFromImage(read)).all()
    assert image.geometry.is_close(
        ImageGeometry(
            read.GetSize(), read.GetSpacing(), read.GetOrigin(), np.reshape(read.GetDirection(), (3, 3))
        )
    )
    assert node.GetScene() is scene
