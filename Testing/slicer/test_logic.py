"""The scripting API on a real scene with the real worker: what a user's script and the panel rely on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from desktop.scans import addPair, digest, itkTransform, lpsImage, lpsLabels
from PDDRegistrationLib import RegistrationLogic
from PDDRegistrationLib.output_nodes import PROVENANCE, allNodes, restoreTransforms
from PDDRegistrationLib.settings import (
    RegistrationError,
    RegistrationInputs,
    RegistrationSettings,
)

QUICK = {"preset": "fast", "levels": 2, "globalStage": False}


@pytest.fixture
def pair(scene):
    return addPair(scene)


def folders_of_runs(temporary: Path) -> list[Path]:
    return list(temporary.glob("pdd-registration-*"))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary files of this test go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def children() -> set[int]:
    text = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in text.split()}


def node_ids(scene) -> set[str]:
    return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}


def test_a_registration_adds_its_outputs_named_after_the_inputs_in_one_folder(scene, pair, temporary):
    before = node_ids(scene)
    done = RegistrationLogic(scene).register(
        pair.fixed, pair.moving, [pair.movingSegmentation], fixedSegmentation=pair.fixedSegmentation, **QUICK
    )
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for node in allNodes(done):
        assert scene.IsNodePresent(node)
        assert "Moving" in node.GetName() or "Atlas" in node.GetName()
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == done.folderItem
    added = {scene.GetNodeByID(identity).GetClassName() for identity in node_ids(scene) - before}
    assert added >= {"vtkMRMLGridTransformNode", "vtkMRMLSegmentationNode", "vtkMRMLTableNode"}
    assert done.transform.GetNodeReference("spatialRegistrationFixed") is pair.fixed
    assert done.transform.GetNodeReference("spatialRegistrationMoving") is pair.moving
    assert '"preset": "fast"' in done.transform.GetAttribute(PROVENANCE)
    assert folders_of_runs(temporary) == []
    segments = {row["name"]: row for row in done.report["segments"]}
    assert np.mean([row["dice_after"] for row in segments.values()]) > np.mean(
        [row["dice_before"] for row in segments.values()]
    )


def test_the_outputs_agree_with_simpleitk_on_the_transform_node(scene, pair):
    done = RegistrationLogic(scene).register(pair.fixed, pair.moving, [pair.movingSegmentation], **QUICK)
    transform, grid = itkTransform(done.transform), lpsImage(pair.fixed)
    air = float(slicer.util.arrayFromVolume(pair.moving).min())
    warped = sitk.Resample(lpsImage(pair.moving), grid, transform, sitk.sitkLinear, air, sitk.sitkFloat64)
    inner = (slice(1, -1),) * 3
    difference = sitk.GetArrayFromImage(warped) - slicer.util.arrayFromVolume(done.warpedVolume)
    assert np.abs(difference[inner]).max() <= 0.51  # rounded to whole HU
    for name in lpsLabels(pair.movingSegmentation):
        labels = sitk.Resample(
            lpsLabels(pair.movingSegmentation)[name], grid, transform, sitk.sitkNearestNeighbor, 0
        )
        identity = done.warpedSegmentations[0].GetSegmentation().GetSegmentIdBySegmentName(name)
        ours = slicer.util.arrayFromSegmentBinaryLabelmap(done.warpedSegmentations[0], identity, pair.fixed)
        assert (sitk.GetArrayFromImage(labels) != ours).sum() == 0, name
    unmoved = sitk.Resample(
        lpsImage(pair.moving), grid, sitk.Transform(), sitk.sitkLinear, air, sitk.sitkFloat64
    )
    difference = sitk.GetArrayFromImage(unmoved) - slicer.util.arrayFromVolume(done.warpedVolume)
    assert np.abs(difference[inner]).mean() > 5  # the comparison can fail


def test_the_inputs_are_left_as_they_were(scene, pair):
    nodes = [pair.fixed, pair.moving, pair.movingSegmentation, pair.fixedSegmentation]
    before = [digest(node) for node in nodes]
    RegistrationLogic(scene).register(pair.fixed, pair.moving, [pair.movingSegmentation], **QUICK)
    assert [digest(node) for node in nodes] == before


@pytest.mark.parametrize("parent", [None, "sheared"])
def test_outputs_come_back_from_a_saved_scene_as_they_were(scene, pair, tmp_path, parent):
    if parent is not None:
        node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", parent)
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 1, 0.2)
        node.SetMatrixTransformToParent(matrix)
        pair.fixed.SetAndObserveTransformNodeID(node.GetID())
    done = RegistrationLogic(scene).register(pair.fixed, pair.moving, [pair.movingSegmentation], **QUICK)
    points = np.random.default_rng(0).uniform(-80, 80, (50, 3))
    expected = [done.transform.GetTransformFromParent().TransformPoint(point) for point in points]
    voxels = slicer.util.arrayFromVolume(done.warpedVolume).copy()
    names = [node.GetName() for node in allNodes(done)]
    provenance = done.transform.GetAttribute(PROVENANCE)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    back = [scene.GetFirstNodeByName(name) for name in names]
    assert None not in back
    transform = back[0]
    cubic = [transform.GetTransformFromParent().TransformPoint(point) for point in points]
    restoreTransforms(scene)
    found = [transform.GetTransformFromParent().TransformPoint(point) for point in points]
    assert np.allclose(found, expected, atol=1e-4)
    assert not np.allclose(cubic, expected, atol=1e-3)  # Slicer's own reading would not do
    assert transform.GetAttribute(PROVENANCE) == provenance
    assert transform.GetNodeReference("spatialRegistrationFixed").GetName() == "Fixed"
    warped = scene.GetFirstNodeByName(done.warpedVolume.GetName())
    assert (slicer.util.arrayFromVolume(warped) == voxels).all()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in back}
    assert len(folders) == 1
    assert hierarchy.GetItemName(folders.pop()).startswith("Registration of")


def test_chosen_output_nodes_are_updated_and_keep_their_names(scene, pair):
    logic = RegistrationLogic(scene)
    first = logic.register(pair.fixed, pair.moving, [pair.movingSegmentation], inverse=True, **QUICK)
    for node in allNodes(first):
        node.SetName(f"mine {node.GetClassName()}")
    identities, count = [node.GetID() for node in allNodes(first)], scene.GetNumberOfNodes()
    vectors = slicer.util.arrayFromGridTransform(first.transform).copy()
    again = logic.register(
        pair.fixed,
        pair.moving,
        [pair.movingSegmentation],
        inverse=True,
        outputs=first,
        **{**QUICK, "levels": 1},
    )
    assert [node.GetID() for node in allNodes(again)] == identities
    assert all(node.GetName().startswith("mine") for node in allNodes(again))
    assert scene.GetNumberOfNodes() == count
    assert again.folderItem == first.folderItem
    assert not np.array_equal(vectors, slicer.util.arrayFromGridTransform(again.transform))


def test_an_asynchronous_registration_reports_and_ends_once(scene, pair):
    told, ended = [], []
    task = RegistrationLogic(scene).register(
        pair.fixed, pair.moving, blocking=False, onProgress=told.append, onFinished=ended.append, **QUICK
    )
    while not task.poll():
        time.sleep(0.01)
    assert task.state == "finished", task.error
    assert ended == [task.outputs]
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert len({progress.stage for progress in told}) > 4


@pytest.mark.parametrize("when", ["export", "start", "level 1", "import"])
def test_cancel_answers_within_a_second_and_leaves_nothing(scene, pair, temporary, when):
    before, running = node_ids(scene), children()
    wanted = []

    def cancel(progress):
        if progress.stage == when and not wanted:
            wanted.append(time.perf_counter())
            task.cancel()

    task = RegistrationLogic(scene).register(
        pair.fixed, pair.moving, [pair.movingSegmentation], blocking=False, onProgress=cancel, **QUICK
    )
    while not task.poll():
        time.sleep(0.002)
    assert time.perf_counter() - wanted[0] < 1.0
    assert task.state == "cancelled"
    assert node_ids(scene) == before
    assert folders_of_runs(temporary) == []
    assert children() <= running


def test_cancel_before_the_first_poll_makes_no_folder(scene, pair, temporary):
    task = RegistrationLogic(scene).register(pair.fixed, pair.moving, blocking=False, **QUICK)
    task.cancel()
    assert task.state == "cancelled"
    assert folders_of_runs(temporary) == []


def test_a_run_whose_input_was_removed_says_so_and_adds_nothing(scene, pair):
    task = RegistrationLogic(scene).register(pair.fixed, pair.moving, blocking=False, **QUICK)
    task.poll()
    scene.RemoveNode(pair.moving)
    before = node_ids(scene)
    while not task.poll():
        time.sleep(0.01)
    assert task.state == "failed"
    assert "was removed from the scene" in str(task.error)
    assert node_ids(scene) == before


def test_errors_of_the_worker_reach_the_caller_and_leave_the_scene_as_it_was(scene, pair, temporary):
    before = node_ids(scene)
    with pytest.raises(RegistrationError, match="cuda:7") as caught:
        RegistrationLogic(scene).register(pair.fixed, pair.moving, device="cuda:7", **QUICK)
    assert caught.value.code == "device"
    assert node_ids(scene) == before
    assert folders_of_runs(temporary) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"moving": None}, "Choose the moving volume"),
        ({"moving": "fixed"}, "are the same"),
        ({"fixed": "empty"}, "is empty"),
        ({"fixed": "vector"}, "3 values per voxel"),
        ({"fixed": "slice"}, "2 or more along each axis"),
        ({"fixedLandmarks": "points"}, "Landmarks need two point lists"),
        ({"fixedLandmarks": "points", "movingLandmarks": "points"}, "0 and 0 points"),
        ({"fixedLandmarks": "point", "movingLandmarks": "unplaced"}, "without a position"),
        ({"moving": "moved", "initialTransform": "shift"}, "count twice"),
        ({"levels": 99}, "levels"),
        ({"smoothness": 0.0}, "smoothness"),
        ({"preset": "nonsense"}, "preset 'nonsense' is not known"),
        ({"preset": "generic", "weights": "mind2"}, "has no network"),
    ],
)
def test_what_cannot_be_registered_is_told_before_anything_starts(scene, pair, change, words):
    vector = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "vector")
    slicer.util.updateVolumeFromArray(vector, np.zeros((4, 4, 4, 3), np.uint8))
    point, unplaced = (scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode") for _ in range(2))
    point.AddControlPoint(1.0, 2.0, 3.0)
    unplaced.AddControlPoint(1.0, 2.0, 3.0)
    unplaced.UnsetNthControlPointPosition(0)
    shift = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
    moved = slicer.util.addVolumeFromArray(np.zeros((8, 8, 8), np.int16), name="moved")
    moved.SetAndObserveTransformNodeID(shift.GetID())
    known = {
        "fixed": pair.fixed,
        "point": point,
        "unplaced": unplaced,
        "moved": moved,
        "shift": shift,
        "empty": scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"),
        "vector": vector,
        "slice": slicer.util.addVolumeFromArray(np.zeros((1, 8, 8), np.int16)),
        "points": scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points"),
    }
    nodes = {"fixed": pair.fixed, "moving": pair.moving}
    settings = {}
    for name, value in change.items():
        if name in RegistrationSettings.__dataclass_fields__:
            settings[name] = value
        else:
            nodes[name] = known.get(value)
    problem = RegistrationLogic(scene).problem(RegistrationInputs(**nodes), RegistrationSettings(**settings))
    assert words in problem
    with pytest.raises(RegistrationError):
        RegistrationLogic(scene).register(**nodes, **settings)


def test_an_unknown_keyword_is_named(scene, pair):
    with pytest.raises(TypeError, match="smoothnes"):
        RegistrationLogic(scene).register(pair.fixed, pair.moving, smoothnes=2.0)


def test_the_estimate_of_memory_grows_with_the_volume(scene, pair):
    logic = RegistrationLogic(scene)
    small = logic.estimate(RegistrationInputs(pair.fixed, pair.moving), RegistrationSettings(preset="fast"))
    large = slicer.util.addVolumeFromArray(np.zeros((200, 200, 200), np.int16))
    large.SetSpacing(3.0, 3.0, 3.0)
    assert logic.estimate(RegistrationInputs(large, pair.moving), RegistrationSettings(preset="fast")) > small


def test_the_worker_describes_its_surroundings(scene):
    described = RegistrationLogic(scene).describe()
    assert "torch" in described["versions"]
    assert "cpu" in described["devices"]


def test_the_synthetic_pair_comes_with_its_organs(scene):
    from pddnet.job import SyntheticRequest

    nodes = RegistrationLogic(scene).addSyntheticPair(SyntheticRequest(size=(40, 36, 44), spacing_mm=8.0))
    assert set(nodes) == {"fixed", "moving", "fixedSegmentation", "movingSegmentation"}
    assert nodes["fixed"].GetImageData().GetDimensions() == (40, 36, 44)
    assert nodes["fixedSegmentation"].GetSegmentation().GetNumberOfSegments() > 5
    assert all(scene.IsNodePresent(node) for node in nodes.values())


def test_kept_files_are_where_the_user_wants_them_and_a_full_disk_loses_no_result(scene, pair, tmp_path):
    RegistrationLogic(scene).register(pair.fixed, pair.moving, keepFolder=str(tmp_path / "kept"), **QUICK)
    (run,) = (tmp_path / "kept").iterdir()
    assert (run / "request.json").is_file()
    assert (run / "result" / "displacement.npy").is_file()
    (tmp_path / "file").write_text("in the way")
    task = RegistrationLogic(scene).register(
        pair.fixed, pair.moving, keepFolder=str(tmp_path / "file" / "kept"), blocking=False, **QUICK
    )
    while not task.poll():
        time.sleep(0.01)
    assert task.state == "finished"
    assert "could not be kept" in task.messages[0]


def test_parents_of_both_volumes_count(scene, pair):
    """Under a common parent the registration is the same, seen from elsewhere."""
    plain = RegistrationLogic(scene).register(pair.fixed, pair.moving, **QUICK)
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "turned")
    turn = vtk.vtkTransform()
    turn.RotateZ(30)
    turn.RotateX(-20)
    turn.Translate(15, -40, 7)
    parent.SetMatrixTransformToParent(turn.GetMatrix())
    for node in (pair.fixed, pair.moving):
        node.SetAndObserveTransformNodeID(parent.GetID())
    turned = RegistrationLogic(scene).register(pair.fixed, pair.moving, **QUICK)
    assert turned.warpedVolume.GetParentTransformNode() is parent
    difference = slicer.util.arrayFromVolume(turned.warpedVolume).astype(float) - slicer.util.arrayFromVolume(
        plain.warpedVolume
    )
    assert np.abs(difference).mean() < 0.5
    point, moved, expected = np.array([10.0, -20.0, 5.0]), [0.0] * 3, [0.0] * 3
    turned.transform.GetTransformFromParent().TransformPoint(turn.TransformPoint(point), moved)
    plain.transform.GetTransformFromParent().TransformPoint(point, expected)
    assert np.allclose(moved, turn.TransformPoint(expected), atol=0.05)
