"""The .ui file and what is made of it: complete, translatable, in order, quick, and refused when it is misspelt."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest

from desktop import widgets
from desktop.panel import UI_FILE, openPanel
from desktop.widgets.loader import UiError, loadUI
from PDDRegistrationLib.controls import connected

_CONTROLS = re.compile(
    r"Q(Push|Tool)Button|QCheckBox|Q\w*SpinBox|QComboBox|ctk\w+|qMRML\w+ComboBox|qMRMLTableView"
)
_LIBRARY = UI_FILE.parents[2] / "PDDRegistrationLib"
_PANEL_FILES = [
    *_LIBRARY.glob("*_panel.py"),
    *(_LIBRARY / name for name in ("widget.py", "view_controls.py", "doubts.py", "sample_data.py")),
]


@pytest.fixture(scope="module")
def tree():
    return ElementTree.parse(UI_FILE)


@pytest.fixture
def panel(scene):
    with openPanel(scene) as opened:
        yield opened


def _named(tree):
    return [element for element in tree.iter("widget") if _CONTROLS.fullmatch(element.get("class"))]


def test_every_control_has_a_tooltip(panel, tree):
    without = [e.get("name") for e in _named(tree) if not getattr(panel.ui, e.get("name")).toolTip]
    assert not without


def test_every_label_beside_a_control_tells_what_the_control_tells(panel, tree):
    buddies = [e for e in tree.iter("widget") if e.find("property[@name='buddy']") is not None]
    assert len(buddies) > 20
    tips = {e.get("name"): e.find("property[@name='toolTip']").findtext("string") for e in _named(tree)}
    for element in buddies:
        buddy = element.find("property[@name='buddy']").findtext("cstring")
        assert getattr(panel.ui, element.get("name")).toolTip == tips[buddy]


def test_texts_that_a_user_reads_are_translated(tree):
    for element in tree.iter("property"):
        text = element.find("string")
        if (
            element.get("name") in ("text", "toolTip", "title", "specialValueText", "noneDisplay")
            and text is not None
        ):
            assert text.get("notr") != "true", text.text


def _untranslated(path):
    """Texts of several words in the code that do not pass through _()."""
    module = ast.parse(path.read_text())
    skipped = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_":
            skipped |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.JoinedStr | ast.Raise):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(module):
        wordy = (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.search(r"[a-z] [a-z]", node.value)
        )
        if wordy and id(node) not in skipped and not re.search(r"[{:]", node.value):
            yield node.value


@pytest.mark.parametrize("path", _PANEL_FILES, ids=lambda path: path.name)
def test_texts_in_the_code_pass_through_the_translator(path):
    assert list(_untranslated(path)) == []


def test_the_search_for_untranslated_texts_finds_one(tmp_path):
    file = tmp_path / "panel.py"
    file.write_text(
        'def f(label):\n    label.text = "Choose a volume"\n    label.tip = _("Choose a volume")\n'
    )
    assert list(_untranslated(file)) == ["Choose a volume"]


def test_the_tab_key_goes_from_top_to_bottom(panel):
    ui = panel.ui
    for section in (ui.outputsSection, ui.viewSection, ui.qualitySection, ui.advancedSection):
        section.collapsed = False
    panel.widget.resize(420, 2000)
    widgets.application().processEvents()
    order, widget = [], panel.widget.nextInFocusChain()
    while widget is not None and widget != panel.widget:
        if widget.objectName and getattr(ui, widget.objectName, None) == widget and widget.visible:
            order.append(widget)
        widget = widget.nextInFocusChain()
    tops = [_top(widget, panel.widget) for widget in order if _is_control(widget)]
    assert len(tops) > 30
    assert tops == sorted(tops)


def _is_control(widget):
    return bool(_CONTROLS.fullmatch(widget.className()))


def _top(widget, root):
    """The widget's row in the panel; widgets of one row differ by a few pixels."""
    y, inner = 0, widget
    while inner != root:
        y, inner = y + inner.y, inner.parent()
    return round(y / 12)


def test_the_panel_fits_a_narrow_column(panel):
    for section in (
        panel.ui.outputsSection,
        panel.ui.viewSection,
        panel.ui.qualitySection,
        panel.ui.advancedSection,
    ):
        section.collapsed = False
    widgets.application().processEvents()
    assert panel.widget.minimumSizeHint.width() <= 400


def test_a_first_time_user_sees_inputs_and_register_only(panel):
    ui = panel.ui
    assert not ui.inputsSection.collapsed
    assert all(
        s.collapsed for s in (ui.outputsSection, ui.viewSection, ui.qualitySection, ui.advancedSection)
    )
    assert not ui.progressWidget.visible
    assert not ui.statusLabel.visible


def test_every_preset_says_what_it_is_for(panel):
    box = panel.ui.presetComboBox
    from PySide6.QtCore import Qt

    assert box.count == 7
    assert box.currentText == "Any scans"
    assert all(box.itemData(index, Qt.ToolTipRole) for index in range(box.count))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('name="noneDisplay"', 'name="noneDisplayed"'),
        ('name="collapsed"', 'name="colapsed"'),
        ("mrmlSceneChanged(vtkMRMLScene*)", "mrmlScenesChanged(vtkMRMLScene*)"),
        ('class="ctkSliderWidget"', 'class="ctkSliderWidgit"'),
    ],
)
def test_a_misspelt_ui_file_is_refused(tmp_path, right, wrong):
    text = UI_FILE.read_text()
    assert right in text
    (tmp_path / "wrong.ui").write_text(text.replace(right, wrong))
    with pytest.raises(UiError):
        loadUI(tmp_path / "wrong.ui")


def test_a_misspelt_signal_is_refused(panel):
    with pytest.raises(ValueError, match=r"registerButton .* has no signal clicked"):
        connected(panel.ui.registerButton, "clicked(int)", lambda: None)
    widgets.complaints.clear()


def test_the_panel_opens_in_under_a_second_without_torch():
    """In a process of its own, in which nothing heavy can be imported."""
    script = f"""
import sys, time
sys.path[:0] = {[str(UI_FILE.parents[3] / "Testing"), str(UI_FILE.parents[2])]!r}
for name in ("torch", "SimpleITK", "scipy", "matplotlib"):
    sys.modules[name] = None
from desktop import boot
scene = boot.start(withWidgets=True)
import slicer
began = time.monotonic()
from PDDRegistrationLib.event_loop import QtEventLoop
from PDDRegistrationLib.logic import RegistrationLogic
from PDDRegistrationLib.widget import makePanel
panel = makePanel({str(UI_FILE)!r}, RegistrationLogic(scene, QtEventLoop()))
panel.enter()
panel.widget.show()
slicer.app.processEvents()
print("seconds", time.monotonic() - began)
panel.close()
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    seconds = float(re.search(r"seconds ([\d.]+)", done.stdout)[1])
    assert seconds < 1.0, f"{seconds:.2f} s of {time.monotonic() - began:.1f} s in all"
