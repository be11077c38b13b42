"""From an empty scene to a result: opening the panel, the sample, the inputs, Register, Cancel."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import slicer

from pddnet.job import SyntheticRequest
from PDDRegistrationLib.dependencies import missing
from PDDRegistrationLib.sample_data import syntheticTitle

from .pulse import Pulse
from .user import MODULE, User, expect

_PATIENT_WIDTH_MM = 360.0  # of the made-up patients
_AT_THE_END = (
    10  # times that pause are allowed when all results enter the scene, where Slicer itself has to draw them
)


def opens(user: User) -> Iterator[None]:
    """The panel appears at once, with nothing to register and a word about what is missing."""
    began = time.perf_counter()
    slicer.util.selectModule(MODULE)
    slicer.app.processEvents()
    seconds = time.perf_counter() - began
    user.record.measured["seconds until the panel is there"] = round(seconds, 3)
    yield from user.settle()
    user.photograph("module", panelToo=True)
    expect(seconds < 1, f"the panel within a second; it took {seconds:.2f} s")
    ui = user.ui
    expect(not ui.registerButton.enabled, "Register cannot be pressed while nothing is chosen")
    expect(ui.registerButton.toolTip == ui.estimateLabel.text != "", "the panel says what is missing")


def hasWhatItNeeds(user: User) -> Iterator[None]:
    """PyTorch is there, or is installed as when Register is pressed."""
    absent = ", ".join(map(str, missing()))
    if not absent:
        return
    expect(
        user.options.install,
        f"{absent} in Slicer's Python; start with PDDREGISTRATION_INSTALL=1 to have it installed",
    )
    user.dialogs.waiting = True
    try:
        _sample(user).trigger()  # asks and installs first
        expect(user.dialogs.questions, "one question before anything is installed")
    finally:
        user.dialogs.waiting = False
    yield from user.until(lambda: not user.panel.run.busy, 300, "the sample")
    expect(not missing(), f"{absent} installed")
    user.record.notes.append(f"installed: {absent}")


def loadsSample(user: User) -> Iterator[None]:
    """One click on the sample, and Register can be pressed."""
    if user.options.size is not None:
        request = SyntheticRequest(
            size=user.options.size, spacing_mm=_PATIENT_WIDTH_MM / user.options.size[0]
        )
        logic = user.panel.logic
        logic.addSyntheticPair = functools.partial(type(logic).addSyntheticPair, logic, request)
    _sample(user).trigger()
    expect(user.panel.run.busy, f"the sample is being made; {user.ui.statusLabel.text}")
    yield from user.until(lambda: not user.panel.run.busy, 300, "the sample")
    ui = user.ui
    expect(ui.fixedSelector.currentNode() is not None, "a fixed volume is chosen")
    expect(ui.movingSelector.currentNode() is not None, "a moving volume is chosen")
    expect(ui.segmentationsSelector.checkedNodes(), "a segmentation to transfer is ticked")
    expect(ui.fixedSegmentationSelector.currentNode() is not None, "a segmentation to compare with is chosen")
    expect(ui.registerButton.enabled, f"Register can be pressed: {ui.registerButton.toolTip}")
    yield from user.settle()
    user.photograph("sample", panelToo=True)
    shown = {
        node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    }
    expect(shown <= {ui.fixedSelector.currentNodeID}, f"the slice views show the fixed volume, not {shown}")


def choosesInputs(user: User) -> Iterator[None]:
    """Other choices are followed at once: Register, its tooltip, the estimate; one volume twice is refused."""
    ui = user.ui
    expect(ui.fixedSelector.currentNode() is not None, "scans to choose from; the sample was not loaded")
    fixed, moving = ui.fixedSelector.currentNode(), ui.movingSelector.currentNode()
    ui.movingSelector.setCurrentNode(None)
    yield from user.settle(0.1)
    expect(not ui.registerButton.enabled, "Register waits for the moving volume")
    expect(ui.registerButton.toolTip, "the tooltip says why")
    ui.fixedSelector.setCurrentNode(moving)
    ui.movingSelector.setCurrentNode(fixed)
    yield from user.settle(0.1)
    expect(user.panel.parameters.fixed is moving, "the other volume is chosen")
    ui.fixedSelector.setCurrentNode(fixed)
    ui.movingSelector.setCurrentNode(moving)
    ui.advancedSection.collapsed = False
    user.choosesLess()
    if not ui.inverseCheckBox.checked:
        ui.inverseCheckBox.click()
    yield from user.settle()
    expect(ui.registerButton.enabled, f"Register can be pressed: {ui.registerButton.toolTip}")
    expect(user.panel.parameters.inverse, "the inverse is wanted")
    user.photograph("inputs", panelToo=True)
    ui.advancedSection.collapsed = True


def registers(user: User) -> Iterator[None]:
    """Register, with the event loop's longest pause measured, at rest first for comparison."""
    pulse = Pulse()
    pulse.start()
    yield from user.settle(1.0)
    pulse.stop()
    measured = user.record.measured
    measured["longest pause at rest (ms)"] = round(pulse.longestMs, 1)
    user.press("the registration")
    pulse.start()
    stages, during, photographed = [], 0.0, False
    task = user.panel.run.task
    while user.panel.busy:
        during = max(during, pulse.longestMs)
        if task.progress.stage not in ("", *stages):
            stages.append(task.progress.stage)
        if task.progress.fraction > 0.2 and not photographed:
            photographed = True
            pulse.stop()  # a screenshot is this script's own doing
            user.photograph("registering", panelToo=True)
            pulse.start()
        yield
        expect(task.elapsed() < 1800, "a result within half an hour")
    pulse.stop()
    measured["seconds of the registration"] = round(task.elapsed(), 1)
    measured["longest pause during the run (ms)"] = round(during, 1)
    measured["pause when the results enter the scene (ms)"] = round(pulse.longestMs, 1)
    user.record.notes.append(f"stages: {', '.join(stages)}")
    expect(task.state == "finished", f"a result: {user.dialogs.takeErrors()} {user.ui.statusLabel.text}")
    expect(user.result.report, "a report with the result")
    expect(len(stages) > 3, f"progress is told in stages, not only {stages}")
    expect(not user.ui.viewSection.collapsed, "the section View opens")
    expect(not user.ui.qualitySection.collapsed, "the section Quality opens")
    yield from user.settle()
    user.photograph("result", panelToo=True)
    user.expectNothingLeft()
    limit = user.options.pauseMs
    expect(during < limit, f"no pause longer than {limit:g} ms during the run; it was {during:.0f} ms")
    end = _AT_THE_END * limit
    expect(pulse.longestMs < end, f"at most {end:g} ms for the results; it was {pulse.longestMs:.0f} ms")


def cancels(user: User) -> Iterator[None]:
    """Cancel in mid-run: gone within a second, with everything that belongs to it."""
    scene = slicer.mrmlScene
    before = scene.GetNumberOfNodes()
    user.press("a second registration")
    yield from user.underWay()
    user.photograph("cancelling")
    began = time.perf_counter()
    user.ui.registerButton.click()
    yield from user.until(lambda: not user.panel.run.busy, 60, "the registration ends")
    seconds = time.perf_counter() - began
    user.record.measured["seconds until it is cancelled"] = round(seconds, 3)
    user.expectNothingLeft()
    expect(seconds < 1, f"Cancel ends it within a second; it took {seconds:.2f} s")
    nodes = scene.GetNumberOfNodes()
    expect(nodes == before, f"as many nodes as before, {before}; there are {nodes}")
    expect(user.ui.registerButton.enabled, f"Register can be pressed again: {user.ui.registerButton.toolTip}")
    expect(user.result.transform is not None, "the result of before is still shown")


def _sample(user: User) -> Any:
    """The entry of the sample menu that needs no network."""
    actions = user.ui.sampleButton.menu().actions()
    return next(action for action in actions if action.text == syntheticTitle())
