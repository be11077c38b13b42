"""The module file as Slicer loads it: four classes, nothing heavy, and a self-test that passes with the real worker."""

from __future__ import annotations

import importlib.util
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer

from desktop import boot
from PDDRegistrationLib import layouts, self_test
from PDDRegistrationLib.requirements import Requirement

_FILE = Path(__file__).resolve().parents[2] / "PDDRegistration" / "PDDRegistration.py"


@pytest.fixture
def application(monkeypatch, scene):
    """The application with the module in its list; what it was asked to call at its start."""
    connections = []
    monkeypatch.setattr(slicer.app, "connect", lambda *pair: connections.append(pair), raising=False)
    entry = boot.Module("PDDRegistration", path=str(_FILE))
    monkeypatch.setattr(slicer.modules, "pddregistration", entry, raising=False)
    return SimpleNamespace(connections=connections, scene=scene)


@pytest.fixture
def module(application):  # noqa: ARG001 (before the module is loaded)
    spec = importlib.util.spec_from_file_location("PDDRegistration", _FILE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    yield loaded
    slicer.selfTests.pop("PDDRegistration", None)


@pytest.fixture
def described(module):
    parent = SimpleNamespace(path=str(_FILE))
    return module.PDDRegistration(parent), parent


@pytest.fixture
def opened(module, monkeypatch):
    """The module's widget, as when its panel has been opened."""
    widget = module.PDDRegistrationWidget()
    widget.setup()
    widget.enter()
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda _name: widget)
    yield widget
    widget.cleanup()
    widget.panel.widget.delete()


def test_the_module_says_what_it_is_and_whom_to_cite(described):
    _module, parent = described
    assert parent.title == "PDD Registration"
    assert parent.categories == ["Registration"]
    assert parent.contributors == ["PDDRegistration contributors"]
    assert "Heinrich" in parent.acknowledgementText
    assert "10.1007/978-3-030-32226-7_6" in parent.acknowledgementText
    assert "not for diagnosis" in parent.helpText


def test_the_icon_is_there(described):
    instance, _parent = described
    assert Path(instance.resourcePath("Icons/PDDRegistration.png")).is_file()


def test_samples_are_registered_when_the_application_has_started(described, application, monkeypatch):
    instance, _parent = described
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    ((signal, slot),) = application.connections
    assert signal == "startupCompleted()"
    assert slot == instance.onStartup
    slot()
    assert len(slicer.modules.sampleDataSources["PDDRegistration"]) == 2


def test_the_layout_of_pairs_is_known_before_a_scene_that_has_it_is_loaded(
    described, application, monkeypatch
):
    instance, _parent = described
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    scene = application.scene
    layout = layouts.layoutNode(scene) or scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    assert not layout.IsLayoutDescription(layouts.PAIRED_LAYOUT)
    instance.onStartup()
    assert layout.IsLayoutDescription(layouts.PAIRED_LAYOUT)


def test_the_self_test_is_skipped_where_nothing_may_be_installed(module, monkeypatch):
    monkeypatch.setattr(self_test, "missing", lambda: (Requirement("torch", "2.3"),))
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: True)
    with pytest.raises(unittest.SkipTest, match=r"torch>=2\.3"):
        module.PDDRegistrationTest().runTest()


def test_a_widget_without_a_parent_keeps_the_panel_its_base_class_sets_up(module, monkeypatch):
    base = module.PDDRegistrationWidget.__mro__[1]
    initialise = base.__init__
    monkeypatch.setattr(
        base, "__init__", lambda self, parent=None: (initialise(self, parent), self.setup())[0]
    )
    widget = module.PDDRegistrationWidget()
    assert widget.logic is widget.panel.logic
    widget.cleanup()
    widget.panel.widget.delete()


def test_the_entry_is_short_and_imports_nothing_heavy():
    text = _FILE.read_text()
    assert len(text.splitlines()) < 125
    for name in ("torch", "SimpleITK", "numpy"):
        assert f"import {name}" not in text


def test_the_panel_opens_and_closes(opened):
    assert opened.panel.widget.parent() is not None
    assert opened.logic is opened.panel.logic
    opened.exit()
    opened.enter()


def test_scripts_get_the_logic_with_its_interface(module):
    logic = module.PDDRegistrationLogic()
    assert callable(logic.register)
    assert logic.moduleName == "PDDRegistration"
    assert not logic.isSingletonParameterNode


def test_reloading_takes_the_library_along(opened, monkeypatch):
    seen = []
    base = type(opened).__mro__[1]
    monkeypatch.setattr(
        base,
        "onReload",
        lambda _self: seen.extend(name for name in sys.modules if name.split(".")[0] == "PDDRegistrationLib"),
        raising=False,
    )
    kept = {
        name: found
        for name, found in sys.modules.items()
        if name.split(".")[0] in ("PDDRegistrationLib", "pddnet")
    }
    try:
        opened.onReload()
    finally:
        sys.modules.update(kept)
    assert seen == []


def test_after_a_reload_the_old_panel_is_deaf(module, opened, scene):
    old = opened.panel
    opened.cleanup()
    again = module.PDDRegistrationWidget()
    again.setup()  # Slicer calls no enter() then
    assert again.panel.parameters is not None
    again.panel.ui.registrationSelector.addNode()
    scene.Clear(False)
    assert old.parameters is None
    again.cleanup()
    again.panel.widget.delete()


def test_the_self_test_passes_with_the_real_worker(module, opened):
    test = module.PDDRegistrationTest()
    test.runTest()
    assert opened.panel.result is not None
    assert not opened.panel.run.busy
