"""Pictures of a finished registration: the panel's own buttons are clicked and the views are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import slicer

from desktop.panel import openPanel
from desktop.pictures import readPng
from desktop.views import LayoutManager
from desktop.widgets import grab

VIEWS_SIZE = (960, 720)
PANEL_WIDTH = 430
SPACING_MM = 20.0  # of grid lines and arrows
# Name of the picture, then the buttons of the panel's section View that are clicked for it.
PICTURES = {
    "side-by-side": ("sideBySideButton", "outlinesButton"),
    "blend": ("blendButton",),
    "checkerboard": ("checkerboardButton",),
    "reveal": ("revealButton",),
    "undeformed": ("undeformedButton", "outlinesButton"),
    "grid": ("gridButton",),
    "arrows": ("arrowsButton",),
    "contours": ("contoursButton",),
    "folding-and-volume-change": ("foldingButton", "jacobianButton"),
    "uncertainty": ("uncertaintyButton",),
    "outlines": ("outlinesButton",),
}


class Gallery:
    """Views of the scene, and the panel with the registration that the scene holds.

    Args:
        logic: the `RegistrationLogic` of the panel.
        fixed: the volume that all slice views show.
        at: the point in world RAS mm that the slices go through.
        size: width and height of the views in pixels.
    """

    def __init__(self, scene, logic, fixed, at, size=VIEWS_SIZE):
        self._scene, self._logic = scene, logic
        self.views = LayoutManager(scene, size)
        slicer.app.setLayoutManager(self.views)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene):
            composite.SetBackgroundVolumeID(fixed.GetID())
        self.views.resetSliceViews()
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
            node.JumpSliceByOffsetting(*at)
        for node in slicer.util.getNodesByClass("vtkMRMLViewNode", scene):
            node.SetBoxVisible(False)
            node.SetAxisLabelsVisible(False)
        self.views.resetThreeDViews()

    def pictures(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, (height, width, 3) uint8): the views for each of `PICTURES`, then the panel with the result."""
        with openPanel(self._scene, self._logic) as panel:
            for name, buttons in PICTURES.items():
                with clicked(panel, buttons):
                    yield name, self.views.layoutImage()
            panel.ui.viewSection.collapsed = panel.ui.qualitySection.collapsed = False
            yield "panel", panelImage(panel)

    def close(self):
        self.views.close()


@contextmanager
def clicked(panel, buttons):
    """The views as these buttons make them; afterwards as they were.

    Raises:
        RuntimeError: a button is disabled.
    """
    panel.ui.spacingSlider.value = SPACING_MM
    for name in buttons:
        button = getattr(panel.ui, name)
        if not button.enabled:
            raise RuntimeError(f"{name} cannot be clicked: {button.toolTip}")
        button.click()
    slicer.app.processEvents()
    try:
        yield
    finally:
        panel.ui.backButton.click()


def panelImage(panel, height=0) -> np.ndarray:
    """(height, width, 3) uint8 of the whole panel, as tall as it wants to be but at least of this height."""
    slicer.app.processEvents()
    panel.widget.resize(PANEL_WIDTH, max(panel.widget.sizeHint.height(), height))
    slicer.app.processEvents()
    with TemporaryDirectory() as folder:
        path = Path(folder, "panel.png")
        grab(panel.widget, path)
        return readPng(path)
