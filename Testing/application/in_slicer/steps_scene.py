"""What becomes of a result when the scene is saved, read, closed; and other scans."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import slicer

from PDDRegistrationLib.sample_data import brainTumorTitle

from .geometry import displaced, interiorPoints, voxelsOf
from .report import Skipped
from .user import User, expect


def savesAndReads(user: User) -> Iterator[None]:
    """A scene bundle brings back the nodes, the parameters and what can be shown."""
    result, inputs = user.result, user.panel.parameters.inputs()
    points = interiorPoints(inputs.fixed, 50)
    names = [node.GetName() for node in (inputs.fixed, inputs.moving, result.transform, result.warpedVolume)]
    there, warped = displaced(result.transform, points), voxelsOf(result.warpedVolume).copy()
    settings, rows = user.panel.parameters.settings(), result.qualityTable.GetNumberOfRows()
    path = user.options.folder / "scene.mrb"
    expect(slicer.util.saveScene(str(path), {}), f"the scene is saved as {path}")
    user.record.measured["size of the scene (MB)"] = round(path.stat().st_size / 1e6, 1)
    del result, inputs

    slicer.mrmlScene.Clear(0)
    yield from user.settle()
    expect(user.ui.fixedSelector.currentNode() is None, "nothing is chosen in a cleared scene")
    expect(user.panel.result is None, "there is no result in a cleared scene")
    expect(not user.ui.blendButton.enabled, "there is nothing to show in a cleared scene")

    slicer.util.loadScene(str(path), {"clear": True})
    yield from user.settle(1.0)
    result, inputs = user.result, user.panel.parameters.inputs()
    nodes = [inputs.fixed, inputs.moving, result.transform, result.warpedVolume]
    expect(None not in nodes, f"the inputs and the results are back: {nodes}")
    read = [node.GetName() for node in nodes]
    expect(read == names, f"the nodes are the same: {read} for {names}")
    expect(user.ui.fixedSelector.currentNode() is inputs.fixed, "the fixed volume is chosen")
    expect(user.panel.parameters.settings() == settings, "the settings are the same")
    change = float(np.abs(displaced(result.transform, points) - there).max())
    expect(change < 1e-3, f"the transform is the same; points come to lie up to {change:.3g} mm elsewhere")
    expect(np.array_equal(voxelsOf(result.warpedVolume), warped), "the warped volume is the same")
    expect(len(result.warpedSegmentations) == len(inputs.segmentations) > 0, "the segmentations are back")
    expect(result.qualityTable.GetNumberOfRows() == rows, "the quality table is back")
    expect(user.ui.registerButton.enabled, f"Register can be pressed: {user.ui.registerButton.toolTip}")
    yield from _showsAgain(user)


def closesSceneDuringRun(user: User) -> Iterator[None]:
    """The registration ends with its scene; the panel waits for the next one."""
    user.press("a registration")
    yield from user.underWay()
    slicer.mrmlScene.Clear(0)
    yield from user.until(lambda: not user.panel.run.busy, 2, "the registration ends with its scene")
    yield from user.settle(1.0)
    user.expectNothingLeft()
    classes = ("vtkMRMLVolumeNode", "vtkMRMLTransformNode", "vtkMRMLSegmentationNode", "vtkMRMLTableNode")
    nodes = [node for name in classes for node in slicer.util.getNodesByClass(name)]
    left = [node for node in nodes if not node.GetHideFromEditors()]  # views have transforms of their own
    expect(not left, f"an empty scene, but there is {[node.GetName() for node in left]}")
    expect(user.panel.parameters is not None, "the panel has a registration for the new scene")
    expect(user.ui.registerButton.toolTip, "the panel says what is missing")
    user.photograph("closed")


def registersBrainTumor(user: User) -> Iterator[None]:
    """The sample scans of Slicer itself, from the network."""
    slicer.mrmlScene.Clear(0)
    yield from user.settle()
    actions = user.ui.sampleButton.menu().actions()
    next(action for action in actions if action.text == brainTumorTitle()).trigger()
    yield from user.settle()
    errors = user.dialogs.takeErrors()
    if errors:
        raise Skipped(f"they could not be downloaded: {errors[0].splitlines()[0]}")
    expect(user.ui.registerButton.enabled, f"Register can be pressed: {user.ui.registerButton.toolTip}")
    user.choosesLess()
    user.pictures.fit()
    yield from user.settle()
    user.photograph("brain-sample", panelToo=True)
    user.press("the registration")
    yield from user.until(lambda: not user.panel.run.busy, 1800, "a result")
    report = user.result.report
    user.record.measured.update(
        {
            "seconds of the registration": round(report["seconds"], 1),
            "mean displacement (mm)": round(report["displacement_mm"]["mean"], 2),
            "folding (%)": round(report["folding_percent"], 4),
        }
    )
    user.ui.blendButton.click()
    yield from user.settle()
    user.photograph("brain-result", panelToo=True)
    user.ui.backButton.click()


def _showsAgain(user: User) -> Iterator[None]:
    """The result that was read can be shown as before."""
    user.pictures.fit()
    yield from user.settle()
    plain = user.pictures.views("read-plain")[1] if user.pictures.possible else ""
    for button in (user.ui.checkerboardButton, user.ui.outlinesButton, user.ui.gridButton):
        expect(button.enabled, f"{button.name} can be pressed: {button.toolTip}")
        button.click()
    yield from user.settle()
    if user.pictures.possible:
        expect(user.pictures.views("read-shown")[1] != plain, "the result that was read can be shown")
    user.photograph("read", panelToo=True)
    user.ui.backButton.click()
