"""The section Inputs: scans, segmentations, preset, and samples to try the module with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from pddnet.config import available_presets, load_preset

from .controls import Control, checkedNodesControl, choiceControl, connected, nodeControl


class InputPanel:
    """Chooses what is registered.

    Args:
        ui: the panel's widgets by name.
        samples: text, tooltip and what to call, for each entry of the sample menu.
    """

    def __init__(self, ui: Any, samples: list[tuple[str, str, Callable[[], None]]]) -> None:
        self._ui = ui
        self._presets = presetNames()
        self._fillPresets()
        self.controls: dict[str, Control] = {
            "fixed": nodeControl(ui.fixedSelector),
            "moving": nodeControl(ui.movingSelector),
            "segmentations": checkedNodesControl(ui.segmentationsSelector),
            "preset": choiceControl(ui.presetComboBox, self._presets),
        }
        self._menu = qt.QMenu(ui.sampleButton)
        self._menu.toolTipsVisible = True
        for text, tip, function in samples:
            action = self._menu.addAction(text)
            action.toolTip = tip
            connected(action, "triggered(bool)", lambda _checked, function=function: function())
        ui.sampleButton.setMenu(self._menu)
        connected(ui.presetComboBox, "currentIndexChanged(int)", self._describePreset)
        self._describePreset()

    def _fillPresets(self) -> None:
        box = self._ui.presetComboBox
        for index, name in enumerate(self._presets):
            box.addItem(presetTitle(name))
            box.setItemData(index, _(load_preset(name).description), qt.Qt.ToolTipRole)

    def _describePreset(self, *_arguments: Any) -> None:
        preset = load_preset(self.controls["preset"].read())
        self._ui.presetDescriptionLabel.text = _(preset.description)
        self._ui.levelsSpinBox.maximum = len(preset.levels)


def presetNames() -> list[str]:
    """The presets, the one for any scan first."""
    return sorted(available_presets(), key=lambda name: (name != "generic", name == "pdd-net-2019", name))


def presetTitle(name: str) -> str:
    """A preset's name for people; its own where it is new."""
    titles = {
        "generic": _("Any scans"),
        "abdomen-ct": _("Abdomen, CT"),
        "brain-mr": _("Brain, MR"),
        "fast": _("Abdomen, CT, fast"),
        "small-structure": _("Small structures, cropped (hippocampus)"),
        "thorax-ct": _("Thorax, CT"),
        "pdd-net-2019": _("Published pdd-net of 2019"),
    }
    return titles.get(name, name)
