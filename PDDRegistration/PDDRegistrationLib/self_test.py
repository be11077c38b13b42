"""What Reload & Test runs, inside Slicer and on its stand-ins: the module on small made-up scans, from end to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import slicer
import vtk

from pddnet.job import SyntheticRequest

from .requirements import listed, missing

_PAIR = SyntheticRequest(size=(60, 50, 70), spacing_mm=6.0)
_FASTER = {"preset": "generic", "levels": 2}  # on the grid of the scans, which is coarse
_LONGEST_S = 300.0


def check(condition: Any, what: str) -> None:
    """Fail the test with a sentence that says what should have been.

    Raises:
        AssertionError: the condition does not hold.
    """
    if not condition:
        raise AssertionError(f"expected: {what}")


def skipWithoutPackages(test: Any) -> None:
    """Skip a test where packages are missing and nobody can be asked: the build machines of extensions."""
    absent = missing()
    if absent and slicer.app.testingEnabled():
        test.skipTest(f"not installed: {listed(absent)}")


def registersByScript(logic: Any) -> None:
    """The scripting interface registers a pair, and the results agree with each other."""
    pair = logic.addSyntheticPair(_PAIR)
    outputs = logic.register(
        pair["fixed"],
        pair["moving"],
        [pair["movingSegmentation"]],
        fixedSegmentation=pair["fixedSegmentation"],
        **_FASTER,
    )
    _checkOverlap(outputs.report)
    _checkTransform(outputs.transform, pair["fixed"], pair["moving"], outputs.warpedVolume)
    check(outputs.qualityTable.GetNumberOfRows() > 1, "a quality table with a row for each segment")


def registersByClicks(panel: Any) -> None:
    """The panel loads the sample, registers, cancels, and shows the result in every way."""
    ui, process = panel.ui, slicer.app.processEvents
    panel.enter()
    pair = panel.logic.addSyntheticPair(_PAIR)
    ui.fixedSelector.setCurrentNode(pair["fixed"])
    ui.movingSelector.setCurrentNode(pair["moving"])
    ui.segmentationsSelector.check(pair["movingSegmentation"])
    ui.fixedSegmentationSelector.setCurrentNode(pair["fixedSegmentation"])
    panel.inputs.controls["preset"].show(_FASTER["preset"])
    ui.levelsSpinBox.setValue(_FASTER["levels"])
    check(ui.registerButton.enabled, f"Register can be pressed, but: {ui.registerButton.toolTip}")

    before = slicer.mrmlScene.GetNumberOfNodes()
    ui.registerButton.click()
    check(panel.run.busy, f"a registration runs, but: {ui.statusLabel.text}")
    ui.registerButton.click()
    check(not panel.run.busy, "Cancel ends it at once")
    check(slicer.mrmlScene.GetNumberOfNodes() == before, "a cancelled registration leaves no node")

    ui.registerButton.click()
    _wait(lambda: not panel.busy)
    process()
    result = panel.result
    check(result is not None, f"a result, but: {ui.statusLabel.text}")
    _checkOverlap(result.report)
    for button in (ui.blendButton, ui.checkerboardButton, ui.gridButton, ui.foldingButton, ui.outlinesButton):
        button.click()
        process()
        check(button.checked, f"{button.text} is shown")
    ui.backButton.click()
    check(not ui.backButton.enabled, "the views are as they were")


def _checkOverlap(report: Any) -> None:
    rows = [row for row in report["segments"] if row["dice_after"] is not None]
    before, after = (float(np.mean([row[key] for row in rows])) for key in ("dice_before", "dice_after"))
    check(after > before + 0.05, f"organs overlap more after ({after:.2f}) than before ({before:.2f})")


def _checkTransform(transform: Any, fixed: Any, moving: Any, warped: Any) -> None:
    """At points of the fixed scan, the warped scan is the moving scan where the transform leads."""
    general, ijkToRas, rasToIjk = (
        transform.GetTransformFromParent(),
        _matrix(fixed),
        np.linalg.inv(_matrix(moving)),
    )
    warpedArray, movingArray = slicer.util.arrayFromVolume(warped), slicer.util.arrayFromVolume(moving)
    differences = []
    for index in np.random.default_rng(0).integers(12, np.array(warpedArray.shape[::-1]) - 12, (200, 3)):
        point = general.TransformPoint((ijkToRas @ [*index, 1.0])[:3])
        there = np.rint((rasToIjk @ [*point, 1.0])[:3]).astype(int)
        if (there >= 0).all() and (there < movingArray.shape[::-1]).all():
            i, j, k = there
            differences.append(float(movingArray[k, j, i]) - float(warpedArray[tuple(index[::-1])]))
    check(len(differences) > 100, "the transform leads into the moving scan")
    spread = float(movingArray.std())
    check(np.median(np.abs(differences)) < 0.25 * spread, "the transform and the warped scan agree")


def _matrix(volume: Any) -> np.ndarray:
    """Voxel indices (i, j, k, 1) to RAS mm, 4x4."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _wait(done: Callable[[], bool]) -> None:
    """Let the application work until something is done."""
    until = time.monotonic() + _LONGEST_S
    while not done():
        check(time.monotonic() < until, f"an answer within {_LONGEST_S:.0f} s")
        slicer.app.processEvents()
        time.sleep(0.01)
