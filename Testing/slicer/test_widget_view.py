"""The sections View and Quality: each button calls the display, says what is on, and one click brings all back."""

from __future__ import annotations

import csv

import pytest
import qt
import slicer

from desktop.panel import REPORT, openPanel, result, volume
from PDDRegistrationLib.doubts import doubts

_MODES = {
    "sideBySideButton": "sideBySide",
    "blendButton": "blend",
    "checkerboardButton": "checkerboard",
    "revealButton": "reveal",
    "flickerButton": "flicker",
    "undeformedButton": "compareMoving",
}
_DRAWINGS = {"gridButton": "grid", "arrowsButton": "arrows", "contoursButton": "contours"}
_OVERLAYS = {
    "foldingButton": "folding",
    "jacobianButton": "jacobian",
    "uncertaintyButton": "uncertainty",
    "outlinesButton": "outlines",
}


@pytest.fixture
def panel(scene):
    """A panel after a registration."""
    with openPanel(scene) as opened:
        fixed, moving = volume("fixed"), volume("moving")
        opened.ui.fixedSelector.setCurrentNode(fixed)
        opened.ui.movingSelector.setCurrentNode(moving)
        opened.ui.registerButton.click()
        opened.logic.finish(result(fixed, moving))
        opened.display = opened.view._display
        yield opened


def test_what_takes_long_to_draw_is_drawn_when_the_slider_is_let_go(panel):
    assert not panel.ui.tileSlider.tracking
    assert not panel.ui.spacingSlider.tracking
    assert panel.ui.blendSlider.tracking


def test_without_a_result_every_button_is_off_and_says_why(scene):
    with openPanel(scene) as panel:
        for name in (*_MODES, *_DRAWINGS, *_OVERLAYS):
            button = getattr(panel.ui, name)
            assert not button.enabled
            assert "register first" in button.toolTip
        assert not panel.ui.backButton.enabled


@pytest.mark.parametrize(("name", "mode"), _MODES.items())
def test_one_click_shows_a_mode_and_the_next_takes_it_away(panel, name, mode):
    button = getattr(panel.ui, name)
    button.click()
    assert panel.display.mode == mode
    assert [other for other in _MODES if getattr(panel.ui, other).checked] == [name]
    button.click()
    assert panel.display.mode == "off"
    assert not button.checked


def test_a_view_that_fails_is_told_and_its_button_is_not_on(panel, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_details: told.append(text))
    monkeypatch.setattr(type(panel.display), "setMode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        panel.view._do(panel.display.setMode, "blend")
    assert "cannot be shown" in told[0]
    assert not panel.ui.blendButton.checked


@pytest.mark.parametrize(("name", "kind"), _DRAWINGS.items())
def test_the_deformation_is_drawn_with_the_chosen_spacing(panel, name, kind):
    getattr(panel.ui, name).click()
    assert (panel.display.transformKind, panel.display.spacingMm) == (kind, 10.0)
    panel.ui.spacingSlider.setValue(6.0)
    assert panel.display.spacingMm == 6.0
    getattr(panel.ui, name).click()
    assert panel.display.transformKind == "off"


@pytest.mark.parametrize(("name", "attribute"), _OVERLAYS.items())
def test_one_click_lays_colours_over_the_scan(panel, name, attribute):
    getattr(panel.ui, name).click()
    assert getattr(panel.display, attribute)
    assert getattr(panel.ui, name).checked
    assert panel.ui.legendLabel.text
    getattr(panel.ui, name).click()
    assert not getattr(panel.display, attribute)


def test_two_colour_maps_exclude_each_other(panel):
    panel.ui.jacobianButton.click()
    panel.ui.uncertaintyButton.click()
    assert panel.ui.uncertaintyButton.checked
    assert not panel.ui.jacobianButton.checked


def test_sliders_work_in_their_mode_only(panel):
    ui = panel.ui
    assert not ui.blendSlider.enabled
    ui.blendButton.click()
    assert ui.blendSlider.enabled
    assert not ui.tileSlider.enabled
    ui.blendSlider.setValue(80.0)
    assert panel.display._comparison.blendOpacity == pytest.approx(0.8)
    ui.checkerboardButton.click()
    ui.tileSlider.setValue(40.0)
    assert panel.display._comparison.checkerSizeMm == 40.0


def test_flicker_stops_when_something_else_is_shown(panel):
    panel.ui.flickerButton.click()
    assert panel.view._timer.active
    panel.ui.blendButton.click()
    assert not panel.view._timer.active


def test_nothing_flickers_in_other_modules(panel):
    panel.ui.flickerButton.click()
    panel.exit()
    assert not panel.view._timer.active
    assert not panel.ui.flickerButton.checked


def test_back_takes_everything_away(panel):
    ui = panel.ui
    for button in (ui.checkerboardButton, ui.gridButton, ui.foldingButton, ui.linkedCheckBox):
        button.click()
    assert ui.backButton.enabled
    ui.backButton.click()
    assert not panel.display.active
    assert not any(getattr(ui, name).checked for name in (*_MODES, *_DRAWINGS, *_OVERLAYS))
    assert not ui.linkedCheckBox.checked
    assert not ui.backButton.enabled


def test_a_deleted_result_switches_the_buttons_off(panel, scene):
    panel.ui.checkerboardButton.click()
    scene.RemoveNode(panel.result.warpedVolume)
    slicer.app.processEvents()
    assert not panel.ui.checkerboardButton.checked
    assert not panel.ui.checkerboardButton.enabled


def test_the_summary_says_how_good_it_is(panel):
    text = panel.ui.summaryLabel.text
    assert "24.8" in text
    assert "0.890" in text
    assert not panel.ui.warningsLabel.visible


def test_a_result_that_looks_right_raises_no_doubts():
    assert doubts(REPORT) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"folding_percent": 0.01}, "folds"),
        ({"uncertainty_mm": {"mean": 9.0, "max": 20.0}}, "9.0 mm"),
        ({"inverse_residual_mm": {"mean": 3.0, "max": 9.0}}, "inverse"),
        ({"landmarks_mm": {"before": [3.0, 4.0], "after": [5.0, 6.0]}}, "landmarks"),
        ({"segments": [{"name": "liver", "dice_before": 0.8, "dice_after": 0.6}]}, "liver"),
        ({"segments": [{"name": "spleen", "uncertainty_mean_mm": 8.0}]}, "spleen"),
        ({"fallback": "continued on the processor"}, "processor"),
    ],
)
def test_what_cannot_be_trusted_is_said_in_words(change, word):
    found = doubts(REPORT | change)
    assert len(found) == 1
    assert word in found[0]


def test_doubts_survive_a_report_with_gaps():
    assert doubts({}) == []
    assert (
        doubts({"folding_percent": None, "uncertainty_mm": {"mean": None}, "segments": [{"name": "a"}]}) == []
    )


def test_the_table_is_exported(panel, monkeypatch, tmp_path):
    path = tmp_path / "quality"
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: str(path))
    panel.ui.exportButton.click()
    with open(tmp_path / "quality.csv", encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == 1 + 1 + len(REPORT["segments"])
    assert "liver" in rows[2]


def test_the_name_offered_for_the_table_is_one_that_files_can_have(panel, monkeypatch):
    offered = []
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *given: offered.append(given[2]) or "")
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "301: CT a/b to 4: MR quality")
    panel.quality.show(table, REPORT)
    panel.ui.exportButton.click()
    assert offered == ["301_ CT a_b to 4_ MR quality.csv"]


def test_a_table_that_cannot_be_written_is_told(panel, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_more: told.append(text))
    monkeypatch.setattr(
        qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "nowhere" / "quality.csv")
    )
    panel.ui.exportButton.click()
    assert "another place" in told[0]


def test_no_name_for_the_export_exports_nothing(panel, monkeypatch, tmp_path):
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: "")
    panel.ui.exportButton.click()
    assert not list(tmp_path.iterdir())
