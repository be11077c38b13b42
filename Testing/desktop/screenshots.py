"""Makes the pictures of Resources/Screenshots anew: the panel is used as in the tutorial of the README.

    python Testing/desktop/screenshots.py

A few minutes. The views and the panel are drawn by the stand-ins of the desktop application; the scans are made up.
Needs Pillow, which comes with matplotlib.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names would hide others
    for folder in ("PDDRegistration", "Testing"):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / folder))

    from desktop import boot

    boot.start(withWidgets=True)  # before slicer is imported

import numpy as np
import slicer
from PIL import Image

from desktop import boot
from desktop.demo_run import middleOf
from desktop.gallery import Gallery, clicked, panelImage
from desktop.panel import openPanel
from desktop.pictures import stamp
from pddnet.job import SyntheticRequest
from PDDRegistrationLib import RegistrationLogic
from PDDRegistrationLib.event_loop import QtEventLoop

FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Screenshots"
LARGEST = 300_000  # bytes of a picture
LONGEST_S = 900.0  # of a registration
VIEWS_SIZE, TILE_SIZE = (800, 830), (360, 310)
TILES = {
    "Blend": ("blendButton",),
    "Checkerboard": ("checkerboardButton",),
    "Outlines": ("outlinesButton",),
    "Grid": ("gridButton",),
    "Volume change": ("jacobianButton", "foldingButton"),
    "Uncertainty": ("uncertaintyButton",),
}


def make(folder: Path, pair: SyntheticRequest, preset: str) -> None:
    """Write panel-at-work.png, result.png, quality.png and views.png."""
    scene = boot.freshScene()
    logic = RegistrationLogic(scene, QtEventLoop())
    nodes = logic.addSyntheticPair(pair)
    for role in ("fixedSegmentation", "movingSegmentation"):
        nodes[role].GetDisplayNode().SetVisibility(False)
    at = middleOf(nodes["fixedSegmentation"], "left kidney")
    gallery = Gallery(scene, logic, nodes["fixed"], at, VIEWS_SIZE)
    with openPanel(scene, logic) as panel:
        _choose(panel, nodes, preset)
        _write(folder / "panel-at-work.png", _atWork(panel, gallery, nodes))
        _wait(panel, lambda: not panel.run.busy)
        _wait(panel, lambda: panel.result is not None)
        _show3D(panel, gallery)
        _write(folder / "result.png", _result(panel, gallery))
        _write(folder / "quality.png", _quality(panel, gallery))
    gallery.close()
    _write(folder / "views.png", _tiles(scene, logic, nodes["fixed"], at))


def _choose(panel, nodes, preset):
    """As the sample's menu entry does, with another preset."""
    panel.parameterPanel.set(
        fixed=nodes["fixed"],
        moving=nodes["moving"],
        segmentations=(nodes["movingSegmentation"],),
        fixedSegmentation=nodes["fixedSegmentation"],
        preset=preset,
        inverse=True,
    )


def _atWork(panel, gallery, nodes):
    """In mid-run, with both scans as they are over each other."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    for composite in composites:
        composite.SetForegroundVolumeID(nodes["moving"].GetID())
        composite.SetForegroundOpacity(0.5)
    panel.ui.registerButton.click()
    _wait(panel, lambda: not panel.run.busy or panel.run.task.progress.fraction > 0.45)
    picture = _window(panel, gallery, ("inputsSection",))
    for composite in composites:
        composite.SetForegroundVolumeID(None)
    return picture


def _show3D(panel, gallery):
    (organs,) = panel.result.warpedSegmentations
    organs.CreateClosedSurfaceRepresentation()
    organs.GetDisplayNode().SetVisibility(True)
    organs.GetDisplayNode().SetVisibility2D(False)
    gallery.views.resetThreeDViews()


def _result(panel, gallery):
    with clicked(panel, ("sideBySideButton", "outlinesButton")):
        return _window(panel, gallery, ("inputsSection", "viewSection"))


def _quality(panel, gallery):
    with clicked(panel, ("uncertaintyButton",)):
        return _window(panel, gallery, ("qualitySection",))


def _tiles(scene, logic, fixed, at):
    """One view for each of `TILES`, three in a row, with the names of the buttons."""
    gallery = Gallery(scene, logic, fixed, at, TILE_SIZE)
    gallery.views.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    gallery.views.resetSliceViews()
    gallery.views.sliceWidget("Red").mrmlSliceNode().JumpSliceByOffsetting(*at)
    images = []
    with openPanel(scene, logic) as panel:
        for title, buttons in TILES.items():
            with clicked(panel, buttons):
                images.append(_titled(gallery.views.image("Red"), title))
    gallery.close()
    return np.vstack([np.hstack(images[:3]), np.hstack(images[3:])])


def _titled(image, title):
    bar = np.full((24, image.shape[1], 3), 239, np.uint8)
    stamp(bar, title, 6, (0, 0, 0))
    return np.vstack([bar, image])


def _window(panel, gallery, open_):
    """The panel with only these sections open, and the views on its right."""
    for name in ("inputsSection", "outputsSection", "viewSection", "qualitySection", "advancedSection"):
        getattr(panel.ui, name).collapsed = name not in open_
    height = VIEWS_SIZE[1]  # what is below could be scrolled to
    return np.hstack([panelImage(panel, height)[:height], gallery.views.layoutImage()])


def _wait(panel, done):
    """Let the application work until something is done; RuntimeError with what the panel says if it takes too long."""
    until = time.monotonic() + LONGEST_S
    while not done():
        if time.monotonic() > until:
            raise RuntimeError(panel.ui.statusLabel.text or "the registration takes too long")
        slicer.app.processEvents()
        time.sleep(0.01)


def _write(path, image):
    """With the 256 colours that suit it best."""
    Image.fromarray(image).quantize(256, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > LARGEST:
        raise RuntimeError(f"{path.name} has {size} bytes, more than {LARGEST}: draw it smaller")
    print(f"{path.name}: {image.shape[1]} x {image.shape[0]}, {size} bytes")


if __name__ == "__main__":
    make(FOLDER, SyntheticRequest(), "abdomen-ct")
