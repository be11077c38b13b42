"""What a radiologist sees, compared with pictures that were looked at: `test_golden/*.png`.

PDDREGISTRATION_UPDATE_GOLDEN=1 writes them anew; look at every one before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import slicer

from desktop import boot, views
from desktop.displayed_result import patientResult
from desktop.pictures import difference, readPng, writePng
from PDDRegistrationLib.display import ResultDisplay

GOLDEN = Path(__file__).parent / "test_golden"
# Drivers differ in how they draw lines and letters; another scan or another place differs in far more.
MEAN_LEVELS, PIXELS = 2.5, 0.05

PICTURES = {
    "before": lambda _display: None,
    "blend": lambda display: display.setMode("blend"),
    "side_by_side": lambda display: display.setMode("sideBySide"),
    "checkerboard": lambda display: display.setMode("checkerboard"),
    "reveal": lambda display: display.setMode("reveal"),
    "flicker": lambda display: (display.setMode("flicker"), display.flip()),
    "compare_moving": lambda display: (display.setMode("compareMoving"), _point(display)),
    "grid": lambda display: display.setTransformDisplay("grid", 15),
    "arrows": lambda display: display.setTransformDisplay("arrows", 15),
    "contours": lambda display: display.setTransformDisplay("contours", 4),
    "folding": lambda display: display.setFolding(True),
    "jacobian": lambda display: display.setJacobian(True),
    "uncertainty": lambda display: display.setUncertainty(True),
    "outlines": lambda display: display.setOutlines(True),
    "all_over_blend": lambda display: (
        display.setMode("blend"),
        display.setJacobian(True),
        display.setFolding(True),
        display.setOutlines(True),
    ),
}


def _point(display):
    """Put the mouse into the first fixed view."""
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    crosshair.SetCursorPositionXYZ([85.0, 70.0, 0.0], red)
    assert display.mode == "compareMoving"


@pytest.fixture(scope="module")
def display():
    if views.missing():
        pytest.skip(views.missing())
    scene = boot.freshScene()
    nodes = patientResult(scene, size=(64, 54, 48), spacing=6.0)
    manager = views.LayoutManager(scene, (400, 300))
    slicer.app.setLayoutManager(manager)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(nodes.fixed.GetID())
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        segmentation.GetDisplayNode().SetVisibility(False)
    manager.resetSliceViews()
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByOffsetting(60, 10, 0)  # where it folds
    display = ResultDisplay(scene)
    display.setNodes(nodes)
    yield display
    display.restore()
    manager.close()


def _picture(display, name):
    PICTURES[name](display)
    picture = slicer.app.layoutManager().layoutImage()
    display.restore()
    return picture


def _allowed(name):
    """(mean levels, part of the pixels): never so much that the view without anything on would pass."""
    if name == "before":
        return MEAN_LEVELS, PIXELS
    levels, pixels = difference(readPng(GOLDEN / f"{name}.png"), readPng(GOLDEN / "before.png"))
    return min(MEAN_LEVELS, levels / 2), min(PIXELS, pixels / 2)


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_the_one_that_was_looked_at(display, name, tmp_path):
    picture = _picture(display, name)
    path = GOLDEN / f"{name}.png"
    if os.environ.get("PDDREGISTRATION_UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        writePng(path, picture)
    levels, pixels = difference(picture, readPng(path))
    most = _allowed(name)
    if levels > most[0] or pixels > most[1]:
        writePng(tmp_path / f"{name}.png", picture)
        pytest.fail(
            f"{tmp_path / name}.png differs from {path} by {levels:.1f} levels, in {pixels:.1%} of its pixels"
        )


def test_a_view_one_slice_further_is_not_accepted(display):
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    offset = red.GetSliceOffset()
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.SetSliceOffset(view.GetSliceOffset() + 12)
    levels, pixels = difference(_picture(display, "before"), readPng(GOLDEN / "before.png"))
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.SetSliceOffset(view.GetSliceOffset() - 12)
    assert red.GetSliceOffset() == pytest.approx(offset)
    assert levels > MEAN_LEVELS
    assert pixels > PIXELS
