"""The section View: one click shows the result in another way, the next click takes it away again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .controls import connected
from .display import DisplayedNodes

_FLICKER_MS = 500


class ViewControls:
    """Buttons on one side, a `ResultDisplay` on the other.

    Args:
        ui: the panel's widgets by name.
        display: what shows the results.
    """

    def __init__(self, ui: Any, display: Any) -> None:
        self._ui, self._display = ui, display
        self._modes = {
            "sideBySide": ui.sideBySideButton,
            "blend": ui.blendButton,
            "checkerboard": ui.checkerboardButton,
            "reveal": ui.revealButton,
            "flicker": ui.flickerButton,
            "compareMoving": ui.undeformedButton,
        }
        self._drawings = {
            "grid": ui.gridButton,
            "arrows": ui.arrowsButton,
            "contours": ui.contoursButton,
        }
        self._overlays: dict[str, tuple[Any, Callable[[bool], None]]] = {
            "folding": (ui.foldingButton, display.setFolding),
            "jacobian": (ui.jacobianButton, display.setJacobian),
            "uncertainty": (ui.uncertaintyButton, display.setUncertainty),
            "outlines": (ui.outlinesButton, display.setOutlines),
        }
        self._tips = {name: button.toolTip for name, button in self._buttons().items()}
        self._timer = qt.QTimer(ui.viewSection)
        self._timer.setInterval(_FLICKER_MS)
        self._connect()
        display.onChanged, display.onMessage = self.update, self._say
        self._say("")
        self.update()

    def setNodes(self, nodes: Any) -> None:
        """Show this registration from now on: a `DisplayedNodes`, None for no result."""
        self._display.setNodes(nodes)
        self.update()

    def exit(self) -> None:
        """The user leaves the module: what is shown stays, but nothing flickers in other modules."""
        if self._display.mode == "flicker":
            self._do(self._display.setMode, "off")

    def close(self) -> None:
        """Bring the views back and let go of them."""
        self._timer.stop()
        self._display.onChanged = self._display.onMessage = None
        self._display.restore()

    def update(self) -> None:
        """Make the buttons say what is shown and what can be shown."""
        ui, display = self._ui, self._display
        for name, button in self._buttons().items():
            problem = display.problem(name)
            button.enabled = not problem
            button.toolTip = problem or self._tips[name]
        for name, button in self._modes.items():
            button.checked = display.mode == name
        for name, button in self._drawings.items():
            button.checked = display.transformKind == name
        for name, (button, _set) in self._overlays.items():
            button.checked = getattr(display, name)
        ui.blendSlider.enabled = ui.blendLabel.enabled = display.mode == "blend"
        ui.tileSlider.enabled = ui.tileLabel.enabled = display.mode == "checkerboard"
        ui.spacingSlider.enabled = ui.spacingLabel.enabled = display.transformKind != "off"
        ui.linkedCheckBox.enabled = display.nodes is not None
        ui.linkedCheckBox.checked = display.linked
        ui.backButton.enabled = display.active
        legend = "\n".join(display.legend())
        ui.legendLabel.text, ui.legendLabel.visible = legend, bool(legend)
        self._letFlicker(display.mode == "flicker")

    def _buttons(self) -> dict[str, Any]:
        return self._modes | self._drawings | {name: button for name, (button, _) in self._overlays.items()}

    def _connect(self) -> None:
        """Clicks only, not changes that `update` makes."""
        for name, button in self._modes.items():
            connected(button, "clicked(bool)", lambda on, name=name: self._onMode(name, on))
        for name, button in self._drawings.items():
            connected(button, "clicked(bool)", lambda on, name=name: self._onDrawing(name, on))
        for button, switch in self._overlays.values():
            connected(button, "clicked(bool)", lambda on, switch=switch: self._do(switch, on))
        ui, display = self._ui, self._display
        connected(ui.linkedCheckBox, "clicked(bool)", lambda on: self._do(display.setLinked, on))
        connected(ui.backButton, "clicked(bool)", lambda _on: self._do(display.restore))
        connected(
            ui.blendSlider, "valueChanged(double)", lambda percent: display.setBlendOpacity(percent / 100)
        )
        connected(ui.tileSlider, "valueChanged(double)", display.setCheckerSize)
        connected(ui.spacingSlider, "valueChanged(double)", self._onSpacing)
        connected(self._timer, "timeout()", display.flip)

    def _onMode(self, name: str, on: bool) -> None:
        self._do(self._display.setMode, name if on else "off")
        self._display.setRevealFollowsCursor(self._display.mode == "reveal")

    def _onDrawing(self, kind: str, on: bool) -> None:
        self._do(self._display.setTransformDisplay, kind if on else "off", self._ui.spacingSlider.value)

    def _onSpacing(self, mm: float) -> None:
        if self._display.transformKind != "off":
            self._display.setTransformDisplay(self._display.transformKind, mm)

    def _do(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            with slicer.util.tryWithErrorDisplay(_("This cannot be shown.")):
                function(*arguments)
        finally:
            self.update()

    def _letFlicker(self, on: bool) -> None:
        if on != self._timer.active:
            if on:
                self._timer.start()
            else:
                self._timer.stop()

    def _say(self, text: str) -> None:
        """What the cursor has to say."""
        self._ui.cursorLabel.text = text
        self._ui.cursorLabel.visible = bool(text)


def displayedNodes(parameters: Any) -> DisplayedNodes | None:
    """The last result with the scans it was made of, None where it is not in the scene any more."""
    result = parameters.result()
    transform = result.transform
    if transform is None:
        return None
    fixed = transform.GetNodeReference(transform.GetFixedNodeReferenceRole())
    moving = transform.GetNodeReference(transform.GetMovingNodeReferenceRole())
    if fixed is None or moving is None:
        return None
    compared = parameters.fixedSegmentation
    return DisplayedNodes(
        fixed=fixed,
        moving=moving,
        warped=result.warpedVolume,
        transform=transform,
        inverse=result.inverseTransform,
        jacobian=result.jacobian,
        uncertainty=result.uncertainty,
        fixedSegmentations=() if compared is None else (compared,),
        movingSegmentations=parameters.segmentations,
        warpedSegmentations=tuple(result.warpedSegmentations),
    )
