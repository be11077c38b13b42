"""The sections Outputs and Advanced: which nodes are updated, and settings that are seldom needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ctk
from slicer.i18n import tr as _

from .controls import (
    Control,
    checkBoxControl,
    choiceControl,
    connected,
    listenToPath,
    nodeControl,
    numberControl,
    pathControl,
)

_BUILT_IN, _PUBLISHED = "", "mind2"  # as `pddnet` names weights


def placeWords(device: str) -> str:
    """Where a registration is computed, in words that go on "runs on ..."."""
    words = {
        "auto": _("a graphics card if one can be used, else the processor"),
        "cpu": _("the processor"),
        "cuda": _("the graphics card"),
    }
    return words.get(device, device)


class OutputPanel:
    """Chooses existing nodes to be updated instead of new ones."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self.controls: dict[str, Control] = {
            "outputTransform": nodeControl(ui.outputTransformSelector),
            "outputWarpedVolume": nodeControl(ui.outputVolumeSelector),
            "outputWarpedSegmentation": nodeControl(ui.outputSegmentationSelector),
            "outputJacobian": nodeControl(ui.outputJacobianSelector),
            "outputUncertainty": nodeControl(ui.outputUncertaintySelector),
            "inverse": self._inverseControl(),
            "outputInverseTransform": nodeControl(ui.outputInverseSelector),
        }
        connected(ui.inverseCheckBox, "toggled(bool)", self._allowInverse)

    def _inverseControl(self) -> Control:
        control = checkBoxControl(self._ui.inverseCheckBox)

        def show(wanted: bool) -> None:
            control.show(wanted)
            self._allowInverse(wanted)  # a selector that is given a scene enables itself

        return replace(control, show=show)

    def _allowInverse(self, wanted: bool) -> None:
        self._ui.outputInverseSelector.enabled = self._ui.outputInverseLabel.enabled = wanted


class AdvancedPanel:
    """Masks, a start, how much is computed and where."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        ui.pythonPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        ui.weightsPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        ui.keepPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        devices = {"auto": _("Automatic"), "cpu": _("Processor (CPU)"), "cuda": _("Graphics card (CUDA)")}
        for title in devices.values():
            ui.deviceComboBox.addItem(title)
        self.controls: dict[str, Control] = {
            "fixedMask": nodeControl(ui.fixedMaskSelector),
            "movingMask": nodeControl(ui.movingMaskSelector),
            "initialTransform": nodeControl(ui.initialTransformSelector),
            "globalStage": choiceControl(ui.globalStageComboBox, [None, True, False]),
            "levels": numberControl(ui.levelsSpinBox, nothing=0),
            "smoothness": numberControl(ui.smoothnessSpinBox, "valueChanged(double)"),
            "instanceIterations": numberControl(ui.iterationsSpinBox, nothing=-1),
            "weights": self._weightsControl(),
            "device": choiceControl(ui.deviceComboBox, list(devices)),
            "python": pathControl(ui.pythonPathLineEdit),
            "keepFolder": pathControl(ui.keepPathLineEdit),
        }

    def _weightsControl(self) -> Control:
        """Built-in, published or a file: a list and a path are one value."""
        box, line = self._ui.weightsComboBox, self._ui.weightsPathLineEdit
        names = [_BUILT_IN, _PUBLISHED]

        def show(value: str) -> None:
            chosen = names.index(value) if value in names else len(names)
            if not (value == _BUILT_IN and box.currentIndex == len(names)):  # "file" chosen, none named yet
                box.setCurrentIndex(chosen)
            if chosen == len(names) and line.currentPath != value:
                line.currentPath = value
            enablePath()

        def read() -> str:
            return names[box.currentIndex] if box.currentIndex < len(names) else line.currentPath

        def enablePath() -> None:
            for widget in (line, self._ui.weightsFileLabel):
                widget.enabled = box.currentIndex == len(names)

        def listen(slot: Any) -> None:
            connected(box, "currentIndexChanged(int)", lambda _index: (enablePath(), slot()))
            listenToPath(line, slot)

        return Control(box, show, read, listen)
