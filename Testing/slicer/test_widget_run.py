"""The panel from choosing scans to the result, with a logic that the test drives."""

from __future__ import annotations

import time

import pytest
import slicer

from desktop.panel import REPORT, openPanel, result, segmentation, volume
from PDDRegistrationLib.advanced_panel import placeWords
from PDDRegistrationLib.device_guess import likelyDevice
from PDDRegistrationLib.settings import RegistrationError, RegistrationSettings


@pytest.fixture
def panel(scene):
    with openPanel(scene) as opened:
        yield opened


@pytest.fixture
def ready(panel):
    """A panel in which Register can be pressed."""
    panel.ui.fixedSelector.setCurrentNode(volume("fixed"))
    panel.ui.movingSelector.setCurrentNode(volume("moving"))
    return panel


@pytest.fixture
def running(ready):
    ready.ui.registerButton.click()
    return ready


@pytest.fixture
def dialogs(monkeypatch):
    """What the user is told."""
    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: shown.append((text, more)))
    return shown


def test_register_waits_for_both_volumes_and_says_which_is_missing(panel):
    button = panel.ui.registerButton
    assert not button.enabled
    assert button.toolTip == panel.ui.estimateLabel.text == "Choose the fixed volume."
    panel.ui.fixedSelector.setCurrentNode(volume("fixed"))
    assert button.toolTip == "Choose the moving volume."
    panel.ui.movingSelector.setCurrentNode(volume("moving"))
    assert button.enabled
    assert "fixed scan lies in the moving scan" in button.toolTip


def test_memory_and_device_are_said_before_the_run(ready):
    text = ready.ui.estimateLabel.text
    assert "2.1 GB" in text
    assert f"Runs on {placeWords(likelyDevice(RegistrationSettings()))}." in text
    ready.ui.deviceComboBox.setCurrentIndex(1)
    assert "Runs on the processor." in ready.ui.estimateLabel.text
    ready.ui.deviceComboBox.setCurrentIndex(2)
    assert "Runs on the graphics card." in ready.ui.estimateLabel.text


def test_what_is_chosen_is_what_is_registered(ready):
    organs, more = (segmentation(name, ready.ui.movingSelector.currentNode()) for name in ("Organs", "More"))
    ready.ui.segmentationsSelector.check(more)
    ready.ui.segmentationsSelector.check(organs)
    ready.ui.presetComboBox.setCurrentIndex(1)
    ready.ui.levelsSpinBox.setValue(2)
    ready.ui.globalStageComboBox.setCurrentIndex(2)
    ready.ui.inverseCheckBox.click()
    ready.ui.registerButton.click()
    name, arguments = ready.logic.calls[0]
    assert name == "register"
    assert arguments["fixed"] is ready.ui.fixedSelector.currentNode()
    assert set(arguments["segmentations"]) == {organs, more}
    assert (arguments["preset"], arguments["levels"]) == ("abdomen-ct", 2)
    assert arguments["globalStage"] is False
    assert arguments["inverse"] is True
    assert arguments["instanceIterations"] is None
    assert arguments["blocking"] is False


def test_chosen_outputs_are_updated_and_new_ones_are_the_default(ready, scene):
    ready.ui.registerButton.click()
    assert ready.logic.calls[0][1]["outputs"].transform is None
    ready.ui.registerButton.click()  # cancels
    chosen = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "mine")
    target = segmentation("target", ready.ui.fixedSelector.currentNode())
    ready.ui.outputTransformSelector.setCurrentNode(chosen)
    ready.ui.outputSegmentationSelector.setCurrentNode(target)
    ready.ui.registerButton.click()
    wanted = ready.logic.calls[1][1]["outputs"]
    assert wanted.transform is chosen
    assert wanted.warpedSegmentations == [target]
    assert wanted.jacobian is None


def test_while_it_runs_register_is_cancel_and_the_inputs_stay(running):
    ui = running.ui
    assert ui.registerButton.text == "Cancel"
    assert ui.registerButton.enabled
    assert ui.progressWidget.visible
    assert not ui.inputsSection.enabled
    assert not ui.advancedSection.enabled


def test_progress_is_shown_with_stage_and_times(running):
    running.logic.progress(0.42)
    ui = running.ui
    assert ui.progressBar.value == 42
    assert ui.stageLabel.text == "level 3 of 8"
    assert ui.timeLabel.text.startswith("0:00, about ")
    assert ui.timeLabel.text.endswith("left")


def test_cancel_answers_at_once_and_leaves_the_scene_as_it_was(running, scene):
    nodes = scene.GetNumberOfNodes()
    began = time.monotonic()
    running.ui.registerButton.click()
    assert time.monotonic() - began < 0.5
    assert running.logic.task.state == "cancelled"
    assert running.ui.registerButton.text == "Register"
    assert running.ui.registerButton.enabled
    assert not running.ui.progressWidget.visible
    assert running.ui.inputsSection.enabled
    assert "Cancelled" in running.ui.statusLabel.text
    assert scene.GetNumberOfNodes() == nodes


def test_a_failure_is_told_with_everything_known_of_it(running, dialogs):
    running.logic.fail(
        RegistrationError("memory", "Not enough memory; choose fast.", "Traceback of the worker")
    )
    (text, more) = dialogs[0]
    assert text == "Not enough memory; choose fast."
    assert more["detailedText"] == "Traceback of the worker"
    assert "Not enough memory" in running.ui.statusLabel.text
    assert running.ui.registerButton.enabled
    assert not running.run.busy


def test_an_unforeseen_failure_is_told_with_its_traceback(running, dialogs):
    running.logic.fail(KeyError("surprise"))
    assert "surprise" in dialogs[0][0]
    assert "Traceback" in dialogs[0][1]["detailedText"]


def test_a_registration_that_cannot_begin_is_told_too(ready, dialogs, monkeypatch):
    def refuses(**_arguments):
        raise RegistrationError("input", "The volume is empty.")

    monkeypatch.setattr(ready.logic, "register", refuses)
    ready.ui.registerButton.click()
    assert dialogs[0][0] == "The volume is empty."
    assert ready.ui.registerButton.text == "Register"


def test_what_cannot_be_installed_is_told_and_nothing_is_started(ready, dialogs):
    ready._installer.error = RegistrationError("missing", "The registration needs torch.")
    ready.ui.registerButton.click()
    assert dialogs[0][0] == "The registration needs torch."
    assert not ready.logic.calls


def test_another_python_is_not_installed_into(ready):
    ready.ui.pythonPathLineEdit.currentPath = "/opt/other/bin/python"
    ready.ui.registerButton.click()
    assert ready._installer.used == 0
    assert ready.logic.calls[0][1]["python"] == "/opt/other/bin/python"


def test_a_result_opens_view_and_quality(running):
    ui = running.ui
    assert ui.viewSection.collapsed
    assert ui.qualitySection.collapsed
    fixed, moving = ui.fixedSelector.currentNode(), ui.movingSelector.currentNode()
    outputs = result(fixed, moving)
    running.logic.finish(outputs)
    assert not ui.viewSection.collapsed
    assert not ui.qualitySection.collapsed
    assert ui.qualityTableView.mrmlTableNode() is outputs.qualityTable
    assert ui.exportButton.enabled
    assert "Finished in 1:23" in ui.statusLabel.text
    assert running.parameters.resultTransform is outputs.transform


def _layers(scene):
    composite = scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    layers = (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID())
    return tuple(scene.GetNodeByID(layer).GetName() if layer else None for layer in layers)


def test_the_warped_scan_is_shown_over_the_fixed_one(running, scene):
    scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    fixed, moving = (ui.currentNode() for ui in (running.ui.fixedSelector, running.ui.movingSelector))
    running.logic.finish(result(fixed, moving))
    assert _layers(scene) == ("fixed", "warped")


def test_the_views_of_another_module_are_left_alone(running, scene):
    scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    before = _layers(scene)
    running.exit()
    fixed, moving = (ui.currentNode() for ui in (running.ui.fixedSelector, running.ui.movingSelector))
    running.logic.finish(result(fixed, moving))
    assert _layers(scene) == before == (None, None)


def test_closing_the_scene_ends_the_run(running, scene):
    scene.Clear(False)
    assert running.logic.task.state == "cancelled"
    slicer.app.processEvents()
    assert running.parameters is not None
    assert not running.ui.registerButton.enabled
    assert running.ui.fixedSelector.currentNode() is None


def test_deleting_an_input_during_the_run_does_no_harm(running, scene, dialogs):
    scene.RemoveNode(running.ui.fixedSelector.currentNode())
    assert running.run.busy
    running.logic.fail(RegistrationError("input", "The fixed volume was removed."))
    assert dialogs[0][0] == "The fixed volume was removed."
    assert running.ui.registerButton.toolTip == "Choose the fixed volume."


def test_leaving_the_module_does_not_end_the_run(running):
    running.exit()
    assert running.run.busy
    running.enter()
    assert running.run.busy


def test_reloading_the_module_ends_the_run_and_its_clock(scene):
    with openPanel(scene) as panel:
        panel.ui.fixedSelector.setCurrentNode(volume("fixed"))
        panel.ui.movingSelector.setCurrentNode(volume("moving"))
        panel.ui.registerButton.click()
        panel.close()
        assert panel.logic.task.state == "cancelled"
        assert not panel.run._clock.active
        scene.Clear(False)  # nobody listens any more
        slicer.app.processEvents()
        assert panel.parameters is None


def test_the_made_up_sample_is_chosen_when_it_is_there(panel):
    actions = panel.ui.sampleButton.menu().actions()
    actions[1].trigger()
    assert panel.logic.calls[0][0] == "addSyntheticPair"
    assert panel.ui.registerButton.text == "Cancel"
    fixed, moving = volume("fixed"), volume("moving")
    pair = {"fixed": fixed, "moving": moving}
    pair |= {f"{role}Segmentation": segmentation(role, volume) for role, volume in list(pair.items())}
    panel.logic.finish(pair)
    assert panel.ui.fixedSelector.currentNode() is fixed
    assert panel.ui.movingSelector.currentNode() is moving
    assert panel.ui.segmentationsSelector.checkedNodes()[0] is pair["movingSegmentation"]
    assert panel.ui.fixedSegmentationSelector.currentNode() is pair["fixedSegmentation"]
    assert panel.ui.registerButton.enabled


def test_the_real_sample_is_downloaded_and_chosen(panel):
    panel.ui.sampleButton.menu().actions()[0].trigger()
    assert panel.ui.fixedSelector.currentNode().GetName() == "MRBrainTumor1"
    assert panel.ui.movingSelector.currentNode().GetName() == "MRBrainTumor2"
    assert panel.parameters.preset == "brain-mr"


def test_without_a_network_the_user_is_told_what_else_there_is(panel, dialogs, monkeypatch):
    import SampleData

    monkeypatch.setattr(SampleData, "offline", True)
    panel.ui.sampleButton.menu().actions()[0].trigger()
    assert "synthetic" in dialogs[0][0]
    assert panel.ui.fixedSelector.currentNode() is None


def test_points_set_while_the_panel_is_open_are_noticed(ready, scene, qtbot):
    asked = []
    ready.logic.problem = lambda inputs, _settings, _outputs: asked.append(inputs) or ""
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    ready.ui.fixedLandmarksSelector.setCurrentNode(points)
    asked.clear()
    for number in range(5):
        points.AddControlPoint(number, 0.0, 0.0)
    qtbot.waitUntil(lambda: bool(asked), timeout=2000)
    assert len(asked) == 1  # once for all five
    ready.ui.fixedLandmarksSelector.setCurrentNode(None)
    asked.clear()
    points.AddControlPoint(9.0, 0.0, 0.0)
    qtbot.wait(200)
    assert not asked


def test_warnings_are_announced_below_the_button(running):
    fixed, moving = running.ui.fixedSelector.currentNode(), running.ui.movingSelector.currentNode()
    running.logic.finish(result(fixed, moving, REPORT | {"folding_percent": 0.2}))
    assert "Warnings: 1, see Quality" in running.ui.statusLabel.text
    assert "folds" in running.ui.warningsLabel.text
    assert running.ui.warningsLabel.visible


def test_what_the_worker_had_to_say_stays_below_the_button(running):
    running.logic.task.log("warning", "The files could not be kept in /full.")
    running.logic.finish(result(running.parameters.fixed, running.parameters.moving))
    assert "Finished" in running.ui.statusLabel.text
    assert "could not be kept" in running.ui.statusLabel.text


def test_a_node_for_the_inverse_is_chosen_only_where_one_is_wanted(panel):
    assert not panel.ui.outputInverseSelector.enabled
    panel.ui.inverseCheckBox.click()
    assert panel.ui.outputInverseSelector.enabled
