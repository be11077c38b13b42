"""The panel and the parameter node say the same, in both directions, through saving, closing and several of them."""

from __future__ import annotations

import pytest
import slicer

from desktop.panel import openPanel, result, segmentation, volume
from desktop.widgets import unwrap
from pddnet.config import load_preset
from PDDRegistrationLib.parameters import RegistrationParameters


@pytest.fixture
def panel(scene):
    with openPanel(scene) as opened:
        yield opened


def _fill(panel):
    """Everything chosen, by the controls; what the parameters must then be."""
    ui = panel.ui
    fixed, moving = volume("fixed"), volume("moving")
    organs, mask = segmentation("Organs", moving), segmentation("Mask", fixed)
    points = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name) for name in ("F", "M")]
    start = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "start")
    nodes = {
        "fixedSelector": fixed,
        "movingSelector": moving,
        "fixedMaskSelector": mask,
        "movingMaskSelector": organs,
        "initialTransformSelector": start,
        "fixedSegmentationSelector": mask,
        "fixedLandmarksSelector": points[0],
        "movingLandmarksSelector": points[1],
        "outputVolumeSelector": volume("target"),
    }
    for name, node in nodes.items():
        getattr(ui, name).setCurrentNode(node)
    ui.segmentationsSelector.check(organs)
    ui.presetComboBox.setCurrentIndex(3)
    ui.globalStageComboBox.setCurrentIndex(1)
    ui.levelsSpinBox.setValue(3)
    ui.smoothnessSpinBox.setValue(1.5)
    ui.iterationsSpinBox.setValue(0)
    ui.weightsComboBox.setCurrentIndex(1)
    ui.deviceComboBox.setCurrentIndex(1)
    ui.pythonPathLineEdit.currentPath = "/opt/python"
    ui.keepPathLineEdit.currentPath = "/tmp/kept"
    ui.inverseCheckBox.click()
    return nodes | {"organs": organs}


def _settings(parameters):
    return vars(parameters.settings())


def test_what_the_user_chooses_is_in_the_parameter_node(panel):
    nodes = _fill(panel)
    inputs = panel.parameters.inputs()
    assert inputs.fixed is nodes["fixedSelector"]
    assert inputs.segmentations == (nodes["organs"],)
    assert inputs.initialTransform is nodes["initialTransformSelector"]
    assert inputs.movingLandmarks is nodes["movingLandmarksSelector"]
    assert panel.parameters.outputs().warpedVolume is nodes["outputVolumeSelector"]
    assert _settings(panel.parameters) == {
        "preset": "fast",
        "device": "cpu",
        "globalStage": True,
        "levels": 3,
        "smoothness": 1.5,
        "instanceIterations": 0,
        "weights": "mind2",
        "inverse": True,
        "python": "/opt/python",
        "keepFolder": "/tmp/kept",
    }


def test_what_a_script_sets_is_in_the_controls(panel):
    fixed, moving = volume("fixed"), volume("moving")
    organs = segmentation("Organs", moving)
    parameters = panel.parameters
    parameters.fixed, parameters.segmentations = fixed, (organs,)
    parameters.preset, parameters.levels, parameters.smoothness = "thorax-ct", 4, 0.5
    parameters.globalStage, parameters.instanceIterations = False, None
    parameters.weights, parameters.device = "/data/net.pth", "cuda:1"
    ui = panel.ui
    assert ui.fixedSelector.currentNode() is fixed
    assert list(ui.segmentationsSelector.checkedNodes()) == [organs]
    assert ui.presetComboBox.currentText == "Thorax, CT"
    assert "Thoracic CT" in ui.presetDescriptionLabel.text
    assert (ui.levelsSpinBox.value, ui.smoothnessSpinBox.value) == (4, 0.5)
    assert ui.globalStageComboBox.currentText == "Off"
    assert ui.iterationsSpinBox.text == "As in the preset"
    assert ui.weightsPathLineEdit.currentPath == "/data/net.pth"
    assert ui.weightsPathLineEdit.enabled
    assert ui.deviceComboBox.currentText == "cuda:1"
    assert parameters.device == "cuda:1"  # nothing was written back


def test_a_change_is_written_once_and_not_echoed(panel):
    writes = []
    panel.parameters.node.AddObserver("ModifiedEvent", lambda *_: writes.append(1))
    panel.ui.levelsSpinBox.setValue(2)
    assert len(writes) == 1


def test_weights_from_a_file_need_the_file(panel):
    ui = panel.ui
    assert not ui.weightsPathLineEdit.enabled
    ui.weightsComboBox.setCurrentIndex(2)
    assert ui.weightsPathLineEdit.enabled
    assert panel.parameters.weights == ""
    assert ui.weightsComboBox.currentIndex == 2  # the empty path is not taken for "built-in"
    ui.weightsPathLineEdit.currentPath = "/data/net.pth"
    assert panel.parameters.weights == "/data/net.pth"
    ui.weightsComboBox.setCurrentIndex(0)
    assert panel.parameters.weights == ""


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("pythonPathLineEdit", "python"),
        ("keepPathLineEdit", "keepFolder"),
        ("weightsPathLineEdit", "weights"),
    ],
)
def test_an_emptied_path_is_no_path(panel, line, name):
    panel.ui.weightsComboBox.setCurrentIndex(2)
    getattr(panel.ui, line).currentPath = "/some/where"
    assert getattr(panel.parameters, name) == "/some/where"
    getattr(panel.ui, line).currentPath = ""
    assert getattr(panel.parameters, name) == ""


def test_a_choice_between_scans_of_one_name_counts(panel):
    first, second = volume("CT"), volume("CT")
    box = unwrap(panel.ui.fixedSelector)._box
    for index, node in ((1, first), (2, second)):
        box.setCurrentIndex(index)
        box.activated.emit(index)  # a click does both
        assert panel.parameters.fixed is node


def test_levels_are_limited_to_those_of_the_preset(panel):
    for name in ("fast", "brain-mr"):
        panel.parameters.preset = name
        assert panel.ui.levelsSpinBox.maximum == len(load_preset(name).levels)
    assert len(load_preset("fast").levels) != len(load_preset("brain-mr").levels)


def test_a_bundle_brings_everything_back(panel, scene, tmp_path):
    nodes = _fill(panel)
    outputs = result(nodes["fixedSelector"], nodes["movingSelector"])
    panel.parameters.setResult(outputs)
    settings = _settings(panel.parameters)
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    scene.Clear(False)
    slicer.app.processEvents()
    assert panel.ui.fixedSelector.currentNode() is None
    slicer.util.loadScene(path, {"clear": True})
    slicer.app.processEvents()
    assert _settings(panel.parameters) == settings
    assert panel.ui.fixedSelector.currentNode().GetName() == "fixed"
    assert [node.GetName() for node in panel.ui.segmentationsSelector.checkedNodes()] == ["Organs"]
    assert panel.result.transform.GetName() == "moving to fixed"
    assert panel.ui.qualityTableView.mrmlTableNode().GetName() == "quality"
    assert panel.ui.checkerboardButton.enabled
    assert len(RegistrationParameters.all(scene)) == 1


def test_one_scene_holds_several_registrations(panel, scene):
    first = panel.parameters.node
    panel.ui.levelsSpinBox.setValue(2)
    panel.ui.registrationSelector.addNode()
    assert panel.parameters.node is not first
    assert panel.ui.levelsSpinBox.text == "All"
    assert len(RegistrationParameters.all(scene)) == 2
    panel.ui.registrationSelector.setCurrentNode(first)
    assert panel.ui.levelsSpinBox.value == 2


def test_a_deleted_registration_is_replaced(panel, scene):
    second = RegistrationParameters.create(scene, "second")
    scene.RemoveNode(panel.parameters.node)
    slicer.app.processEvents()
    assert panel.parameters.node is second.node
    scene.RemoveNode(second.node)
    slicer.app.processEvents()
    assert panel.parameters is not None
    assert len(RegistrationParameters.all(scene)) == 1


def test_a_deleted_volume_is_no_longer_chosen(panel, scene):
    node = volume("fixed")
    panel.ui.fixedSelector.setCurrentNode(node)
    scene.RemoveNode(node)
    assert panel.parameters.fixed is None
    assert not panel.ui.registerButton.enabled


def test_nothing_is_made_in_a_scene_while_the_user_is_elsewhere(panel, scene):
    panel.exit()
    scene.Clear(False)
    slicer.app.processEvents()
    assert not RegistrationParameters.all(scene)
    panel.enter()
    assert len(RegistrationParameters.all(scene)) == 1


def test_a_damaged_parameter_is_told(panel, scene):
    other = RegistrationParameters.create(scene, "other")
    other.node.SetParameter("levels", "many")
    panel.ui.registrationSelector.setCurrentNode(other.node)
    assert "levels" in panel.ui.statusLabel.text
    assert panel.ui.levelsSpinBox.text == "All"
