"""Parameters live in the scene: kept, restored, told once, and never believed blindly."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import slicer
import vtk

from desktop.nodes import linearNode, rigid, volumeNode
from pddnet.geometry import ImageGeometry
from PDDRegistrationLib.parameters import RegistrationParameters
from PDDRegistrationLib.settings import RegistrationInputs, RegistrationOutputs, RegistrationSettings

GRID = ImageGeometry((4, 5, 6))
SETTINGS = {
    "preset": "abdomen-ct",
    "device": "cpu",
    "globalStage": False,
    "levels": 3,
    "smoothness": 0.75,
    "instanceIterations": 0,
    "weights": 'C:\\weights; with 100% "odd" <signs>.pt',
    "inverse": True,
    "python": "/opt/python 3/bin/python",
    "keepFolder": "/tmp/Körper",
}


def filled(scene) -> RegistrationParameters:
    """Parameters of which none is at its default."""
    parameters = RegistrationParameters.create(scene, "first")
    for name in ("fixed", "moving", "fixedMask", "movingMask", "outputJacobian", "resultWarpedVolume"):
        setattr(parameters, name, volumeNode(scene, GRID, name=name))
    for name in ("fixedLandmarks", "movingLandmarks"):
        setattr(parameters, name, scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name))
    segmentations = [scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"organs {n}") for n in range(2)]
    labels = volumeNode(scene, GRID, np.ones(GRID.shape, np.uint8), "labels", "vtkMRMLLabelMapVolumeNode")
    parameters.segmentations = (segmentations[1], labels, segmentations[0])
    parameters.fixedSegmentation = segmentations[0]
    parameters.initialTransform = parameters.outputTransform = linearNode(scene, rigid())
    parameters.view = {"layout": "compare", "grid spacing": 5.5, "folding": True}
    for name, value in SETTINGS.items():
        setattr(parameters, name, value)
    return parameters


def names(parameters: RegistrationParameters) -> dict[str, object]:
    """The inputs by the names of the nodes."""
    return {
        field.name: [node.GetName() for node in value]
        if isinstance(value, tuple)
        else value and value.GetName()
        for field in fields(RegistrationInputs)
        for value in [getattr(parameters.inputs(), field.name)]
    }


def test_new_parameters_are_the_defaults(scene):
    parameters = RegistrationParameters.create(scene)
    assert parameters.settings() == RegistrationSettings()
    assert parameters.inputs() == RegistrationInputs(None, None)
    assert parameters.outputs() == RegistrationOutputs()
    assert parameters.result() == RegistrationOutputs()
    assert parameters.view == {}
    assert parameters.problems() == []


def test_every_field_has_a_parameter():
    for kind in (RegistrationInputs, RegistrationSettings):
        assert all(hasattr(RegistrationParameters, field.name) for field in fields(kind))
    assert set(SETTINGS) == {field.name for field in fields(RegistrationSettings)}
    for name, value in SETTINGS.items():
        assert value != getattr(RegistrationSettings(), name)


def test_what_is_set_is_there_also_for_another_wrapper(scene):
    parameters = RegistrationParameters(filled(scene).node)
    assert parameters.settings() == RegistrationSettings(**SETTINGS)
    assert names(parameters)["segmentations"] == ["organs 1", "labels", "organs 0"]
    assert parameters.outputs().jacobian.GetName() == "outputJacobian"
    assert parameters.result().warpedVolume.GetName() == "resultWarpedVolume"
    parameters.levels = parameters.globalStage = parameters.fixedMask = None
    parameters.segmentations = ()
    assert (parameters.levels, parameters.globalStage, parameters.fixedMask) == (None, None, None)
    assert parameters.segmentations == ()


def test_parameters_survive_a_bundle(scene, tmp_path):
    parameters = filled(scene)
    expected, view = names(parameters), parameters.view
    parameters.resultReport = {"seconds": 1.5, "segments": [{"name": 'Leber "links"'}]}
    second = RegistrationParameters.create(scene, "second")
    second.fixed = parameters.moving
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(False)
    assert RegistrationParameters.all(scene) == []
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    first, second = RegistrationParameters.all(scene)
    assert [p.node.GetName() for p in (first, second)] == ["first", "second"]
    assert first.settings() == RegistrationSettings(**SETTINGS)
    assert names(first) == expected
    assert first.view == view
    assert first.resultReport["segments"] == [{"name": 'Leber "links"'}]
    assert second.fixed is first.moving
    assert second.settings() == RegistrationSettings()
    assert first.problems() == second.problems() == []


def test_a_bundle_that_is_added_keeps_its_own_nodes(scene, tmp_path):
    parameters = filled(scene)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": False})
    first, second = RegistrationParameters.all(scene)
    assert first.node is parameters.node
    assert second.fixed.GetID() != first.fixed.GetID()
    assert [node.GetID() for node in second.segmentations] != [node.GetID() for node in first.segmentations]
    assert len(second.segmentations) == 3


def test_renamed_nodes_stay_and_deleted_ones_are_none(scene):
    parameters = filled(scene)
    parameters.fixed.SetName("renamed")
    assert parameters.fixed.GetName() == "renamed"
    scene.RemoveNode(parameters.moving)
    scene.RemoveNode(parameters.segmentations[1])
    assert parameters.moving is None
    assert [node.GetName() for node in parameters.segmentations] == ["organs 1", "organs 0"]
    assert parameters.problems() == []
    parameters.moving = parameters.fixed
    assert parameters.moving is parameters.fixed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("levels", "many"),
        ("levels", "0"),
        ("levels", "2.5"),
        ("smoothness", "0"),
        ("smoothness", "nan"),
        ("smoothness", "1e999"),
        ("smoothness", ""),
        ("instanceIterations", "-1"),
        ("globalStage", "perhaps"),
        ("inverse", ""),
        ("preset", ""),
        ("device", ""),
        ("view", "[1, 2]"),
        ("view", "{"),
    ],
)
def test_a_malformed_value_counts_as_the_default_and_is_told(scene, name, text):
    parameters = RegistrationParameters.create(scene)
    default = getattr(parameters, name)
    parameters.node.SetParameter(name, text)
    assert getattr(parameters, name) == default
    (problem,) = parameters.problems()
    assert problem.startswith(f"{name} is not used")
    setattr(parameters, name, default)
    assert parameters.problems() == []


def test_a_node_of_another_kind_counts_as_none_and_is_told(scene):
    parameters = RegistrationParameters.create(scene)
    parameters.node.SetNodeReferenceID("fixed", linearNode(scene, rigid(), "a turn").GetID())
    assert parameters.fixed is None
    assert parameters.problems() == ["fixed is not used as it was saved: a turn is of another kind."]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", 0),
        ("levels", 1.5),
        ("levels", "x"),
        ("smoothness", -1.0),
        ("smoothness", None),
        ("instanceIterations", -3),
        ("inverse", None),
        ("inverse", 1),
        ("preset", ""),
        ("preset", None),
        ("view", {"a": object()}),
        ("view", {"a": float("nan")}),
    ],
)
def test_a_value_that_could_not_be_read_back_is_refused(scene, name, value):
    parameters = RegistrationParameters.create(scene)
    with pytest.raises(ValueError, match=r".+"):
        setattr(parameters, name, value)
    assert parameters.problems() == []


def test_nodes_of_another_kind_or_scene_are_refused(scene):
    parameters = RegistrationParameters.create(scene)
    with pytest.raises(ValueError, match="fixed cannot be"):
        parameters.fixed = linearNode(scene, rigid())
    with pytest.raises(ValueError, match="not in the scene"):
        parameters.fixed = slicer.vtkMRMLScalarVolumeNode()
    with pytest.raises(ValueError, match="vtkMRMLScriptedModuleNode is needed"):
        RegistrationParameters(linearNode(scene, rigid()))


def test_each_change_is_told_once_and_no_change_never(scene):
    parameters = filled(scene)
    told = []
    parameters.node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_arguments: told.append(1))
    for name, value in SETTINGS.items():
        setattr(parameters, name, value)
    for name in ("fixed", "segmentations", "view"):
        setattr(parameters, name, getattr(parameters, name))
    assert told == []
    parameters.levels = 5
    assert len(told) == 1
    parameters.segmentations = parameters.segmentations[:2]
    assert len(told) == 2
    with parameters.batch():
        parameters.levels, parameters.preset, parameters.fixed = 1, "generic", parameters.moving
        parameters.segmentations = ()
    assert len(told) == 3
    parameters.setResult(RegistrationOutputs(warpedVolume=parameters.moving, report={"seconds": 2.0}))
    assert len(told) == 4
    assert parameters.result().warpedVolume is parameters.moving
    assert parameters.result().report == {"seconds": 2.0}


def test_one_registration_of_several_is_the_modules_and_not_another_modules(scene):
    other = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "other")
    other.SetModuleName("SomethingElse")
    first = RegistrationParameters.firstNode(scene)
    assert RegistrationParameters.firstNode(scene) is first
    assert first.GetAttribute("ModuleName") == first.GetModuleName() == "PDDRegistration"
    second = RegistrationParameters.create(scene, first.GetName())
    assert second.node.GetName() != first.GetName()
    second.levels = 2
    assert RegistrationParameters(first).levels is None
    assert [p.node for p in RegistrationParameters.all(scene)] == [first, second.node]
    assert other not in [p.node for p in RegistrationParameters.all(scene)]


def test_the_panels_one_segmentation_is_the_first_of_several(scene):
    parameters = filled(scene)
    first, second = parameters.segmentations[0], parameters.segmentations[2]
    parameters.outputWarpedSegmentations = (first, second)
    assert parameters.outputWarpedSegmentation is first
    parameters.outputWarpedSegmentation = second
    assert parameters.outputs().warpedSegmentations == [second]
    parameters.outputWarpedSegmentation = None
    assert parameters.outputWarpedSegmentation is None
