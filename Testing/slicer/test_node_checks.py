"""What may be given to a registration and where its results may go: told before anything starts, nothing is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from desktop.scans import addPair, digest
from pddnet import config
from PDDRegistrationLib import RegistrationLogic
from PDDRegistrationLib.output_nodes import allNodes
from PDDRegistrationLib.settings import (
    RegistrationError,
    RegistrationInputs,
    RegistrationOutputs,
    RegistrationSettings,
)

QUICK = {"preset": "fast", "levels": 1, "globalStage": False}


@pytest.fixture
def pair(scene):
    return addPair(scene)


def inputs_of(pair, **others):
    return RegistrationInputs(pair.fixed, pair.moving, (pair.movingSegmentation,), **others)


def problem(pair, outputs=None, settings=None, **others):
    inputs = inputs_of(pair, **others)
    return RegistrationLogic(slicer.mrmlScene).problem(inputs, settings or RegistrationSettings(), outputs)


def node_ids(scene):
    return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}


def test_an_input_is_never_an_output(scene, pair):
    start = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Start")
    others = {"fixedSegmentation": pair.fixedSegmentation, "initialTransform": start}
    inputs = (pair.fixed, pair.moving, pair.movingSegmentation, pair.fixedSegmentation)
    before = [digest(node) for node in inputs]
    for wanted in (
        {"warpedVolume": pair.moving},
        {"jacobian": pair.fixed},
        {"uncertainty": pair.moving},
        {"warpedSegmentations": [pair.movingSegmentation]},
        {"warpedSegmentations": [pair.fixedSegmentation]},
        {"transform": start},
    ):
        assert "is an input and chosen for an output" in problem(
            pair, RegistrationOutputs(**wanted), **others
        )
        with pytest.raises(RegistrationError, match="is an input"):
            RegistrationLogic(scene).register(
                **vars(inputs_of(pair, **others)), outputs=RegistrationOutputs(**wanted), **QUICK
            )
    assert [digest(node) for node in inputs] == before
    assert problem(pair, RegistrationOutputs(transform=start)) == ""  # it is where it is no input


def test_an_output_transform_is_not_above_an_input_nor_below_another_transform(scene, pair):
    result, outer = (
        scene.AddNewNodeByClass("vtkMRMLGridTransformNode", name) for name in ("Result", "Outer")
    )
    inner = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Inner")
    wanted = RegistrationOutputs(transform=result)
    assert problem(pair, wanted) == ""
    inner.SetAndObserveTransformNodeID(result.GetID())
    assert problem(pair, wanted) == ""
    pair.movingSegmentation.SetAndObserveTransformNodeID(inner.GetID())  # not directly under it
    assert "Atlas is under the transform Result" in problem(pair, wanted)
    pair.movingSegmentation.SetAndObserveTransformNodeID(None)
    result.SetAndObserveTransformNodeID(outer.GetID())
    assert "Result is under another transform" in problem(pair, wanted)


def test_one_node_holds_one_result(scene, pair):
    transform = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Both")
    volumes = [scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode") for _ in range(2)]
    both = RegistrationOutputs(transform=transform, inverseTransform=transform)
    assert "Both is chosen for two outputs" in problem(pair, both, RegistrationSettings(inverse=True))
    assert problem(pair, both) == ""  # no inverse is made, so the node is not used twice
    assert "two outputs" in problem(pair, RegistrationOutputs(jacobian=volumes[0], uncertainty=volumes[0]))
    assert problem(pair, RegistrationOutputs(jacobian=volumes[0], uncertainty=volumes[1])) == ""


@pytest.mark.parametrize(
    ("role", "class_name"),
    [
        ("transform", "vtkMRMLScalarVolumeNode"),
        ("warpedVolume", "vtkMRMLLabelMapVolumeNode"),
        ("jacobian", "vtkMRMLTableNode"),
        ("uncertainty", "vtkMRMLVectorVolumeNode"),
        ("qualityTable", "vtkMRMLGridTransformNode"),
        ("warpedSegmentations", "vtkMRMLLabelMapVolumeNode"),
    ],
)
def test_an_output_of_another_kind_is_refused_before_any_other_is_changed(scene, pair, role, class_name):
    chosen = scene.AddNewNodeByClass(class_name, "Chosen")
    fine = scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    wanted = {"transform": fine, role: [chosen] if role == "warpedSegmentations" else chosen}
    time = fine.GetMTime()
    with pytest.raises(RegistrationError, match=f"Chosen, a {class_name}"):
        RegistrationLogic(scene).register(
            **vars(inputs_of(pair)), outputs=RegistrationOutputs(**wanted), **QUICK
        )
    assert fine.GetMTime() == time


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fixedMask": "a name"}, "fixed mask is 'a name'"),
        ({"initialTransform": "centres"}, "initial transform is 'centres'"),
        ({"fixedLandmarks": "Fixed", "movingLandmarks": "Moving"}, "a vtkMRMLScalarVolumeNode"),
        ({"fixedSegmentation": "orphan"}, "in no scene"),
        ({"segmentations": (None,)}, "segmentation to transfer is None"),
        ({"fixed": "Organs"}, "fixed volume is Organs, a vtkMRMLSegmentationNode"),
    ],
)
def test_an_input_of_another_kind_is_named(scene, pair, given, words):
    known = {
        "Fixed": pair.fixed,
        "Moving": pair.moving,
        "Organs": pair.fixedSegmentation,
        "orphan": slicer.vtkMRMLSegmentationNode(),
    }
    nodes = {
        role: known.get(value, value) if isinstance(value, str) else value for role, value in given.items()
    }
    inputs = RegistrationInputs(**{"fixed": pair.fixed, "moving": pair.moving, **nodes})
    assert words in RegistrationLogic(scene).problem(inputs, RegistrationSettings())


@pytest.mark.parametrize("given", [{"levels": "2"}, {"levels": 1.5}, {"smoothness": "much"}])
def test_a_setting_that_is_no_number_is_named(pair, given):
    assert f"{next(iter(given))} is" in problem(pair, settings=RegistrationSettings(**given))


def test_one_segmentation_in_place_of_a_list_is_told(scene, pair):
    with pytest.raises(TypeError, match="give a list of nodes"):
        RegistrationLogic(scene).register(pair.fixed, pair.moving, pair.movingSegmentation)


def test_a_chosen_output_that_was_removed_during_the_run_is_made_anew(scene, pair):
    kept, removed = (scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode") for _ in range(2))
    task = RegistrationLogic(scene).register(
        **vars(inputs_of(pair)),
        outputs=RegistrationOutputs(warpedVolume=removed, jacobian=kept),
        blocking=False,
        **QUICK,
    )
    task.poll()
    scene.RemoveNode(removed)
    while not task.poll():
        pass
    assert task.state == "finished", task.error
    assert task.outputs.jacobian is kept
    assert all(scene.IsNodePresent(node) for node in allNodes(task.outputs))


@pytest.mark.parametrize("moved", ["fixed", "moving", None])
def test_a_scan_that_was_moved_during_the_run_is_told(scene, pair, moved):
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = vtk.vtkTransform()
    turn.RotateZ(1.0)
    parent.SetMatrixTransformToParent(turn.GetMatrix())
    task = RegistrationLogic(scene).register(**vars(inputs_of(pair)), blocking=False, **QUICK)
    task.poll()
    while task.progress.stage == "export":
        task.poll()
    if moved:
        getattr(pair, moved).SetAndObserveTransformNodeID(parent.GetID())
    while not task.poll():
        pass
    assert task.state == "finished", task.error
    assert [moved.capitalize() in text for text in task.messages] == [True] if moved else not task.messages


def test_a_result_that_cannot_be_shown_leaves_no_node_of_any_kind(scene, pair, monkeypatch):
    before = node_ids(scene)
    module = "PDDRegistrationLib.output_nodes"
    monkeypatch.setattr(f"{module}._folder", lambda *_: 1 / 0)  # the last step: every node has been added
    with pytest.raises(ZeroDivisionError):
        RegistrationLogic(scene).register(**vars(inputs_of(pair)), inverse=True, **QUICK)
    assert node_ids(scene) == before


@pytest.mark.parametrize("enabled", [True, False])
def test_undo_takes_all_results_or_none(scene, pair, enabled):
    scene.SetUndoOn()
    for kind in (
        "ScalarVolume",
        "ScalarVolumeDisplay",
        "GridTransform",
        "TransformDisplay",
        "TransformStorage",
    ):
        usual = getattr(slicer, f"vtkMRML{kind}Node")()
        usual.SetUndoEnabled(enabled)
        scene.AddDefaultNode(usual)
    done = RegistrationLogic(scene).register(pair.fixed, pair.moving, **QUICK)
    undoable = [done.transform, done.warpedVolume, done.jacobian, done.uncertainty]
    shown = [node.GetDisplayNode() for node in undoable]
    scene.Undo()
    assert {bool(scene.IsNodePresent(node)) for node in undoable + shown} == {not enabled}
    scene.Redo()
    assert all(scene.IsNodePresent(node) for node in undoable + shown)


def test_paths_are_those_of_the_application_not_of_its_worker(scene, pair, tmp_path, monkeypatch):
    preset = Path(config.__file__).parent / "presets" / "fast.toml"
    (tmp_path / "mine.toml").write_bytes(preset.read_bytes())
    monkeypatch.chdir(tmp_path)
    done = RegistrationLogic(scene).register(pair.fixed, pair.moving, **{**QUICK, "preset": "mine.toml"})
    assert done.report["device"] == "cpu"


def test_label_maps_can_be_registered_like_scans(scene, pair):
    nodes = []
    for scan in (pair.fixed, pair.moving):
        voxels = (slicer.util.arrayFromVolume(scan) > -200).astype(np.int16)
        node = slicer.util.addVolumeFromArray(voxels, nodeClassName="vtkMRMLLabelMapVolumeNode")
        node.CopyOrientation(scan)
        node.CreateDefaultDisplayNodes()
        nodes.append(node)
    done = RegistrationLogic(scene).register(*nodes, **QUICK)
    assert done.warpedVolume.GetDisplayNode().IsA("vtkMRMLScalarVolumeDisplayNode")


@pytest.mark.parametrize("label", [-(2**31) - 1, 2**31, -(2**40)])
def test_labels_that_would_not_come_back_are_refused(scene, pair, label):
    """-2**40 has no bit in the lower half, so that it would turn into 0 without a word."""
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_LONG_LONG, 1)
    values = vtk_to_numpy(image.GetPointData().GetScalars())
    values[:] = 0
    values[5:9] = label
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Wide")
    node.SetAndObserveImageData(image)
    with pytest.raises(RegistrationError, match=f"holds the label {label}"):
        RegistrationLogic(scene).register(pair.fixed, pair.moving, [node], **QUICK)


def test_segments_of_one_name_are_compared_one_by_one(scene, pair):
    """A scan with itself: each segment finds itself, and one more of the name has nothing to be compared with."""
    moving = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(pair.fixed).copy(), name="Copy")
    moving.CopyOrientation(pair.fixed)
    contents = pair.fixedSegmentation.GetSegmentation()
    identities = contents.GetSegmentIDs()
    for identity in identities[:3]:
        contents.GetSegment(identity).SetName("Same")
    twin = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    twin.SetName(None)
    twin.GetSegmentation().DeepCopy(contents)
    contents.RemoveSegment(identities[2])
    done = RegistrationLogic(scene).register(
        pair.fixed, moving, [twin], fixedSegmentation=pair.fixedSegmentation, **QUICK
    )
    same = [row for row in done.report["segments"] if row["name"] == "Same"]
    assert [row["dice_before"] for row in same] == [1.0, 1.0, None]
    assert [row["dice_after"] for row in same] == [1.0, 1.0, None]
