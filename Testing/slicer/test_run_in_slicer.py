"""The script that a person runs in the application, run on its stand-ins: it passes, and it notices what is broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from desktop import views

_ROOT = Path(__file__).resolve().parents[2]
_LAUNCHER = _ROOT / "Testing" / "desktop" / "run_script.py"
_SCRIPT = _ROOT / "Testing" / "application" / "run_in_slicer.py"
_QUICK = {
    "PDDREGISTRATION_SIZE": "60x50x70",
    "PDDREGISTRATION_PRESET": "generic",
    "PDDREGISTRATION_LEVELS": "1",
    "PDDREGISTRATION_PAUSE_MS": "400",  # of a computer that does other things, too; test_long_sessions has the limit
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
_OPENS, _INSTALLED, _SAMPLE, _INPUTS, _REGISTERS = range(5)
_VIEWS, _CANCELS = 9, 11


def launched(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PDDREGISTRATION")}
    return subprocess.run(
        [sys.executable, str(_LAUNCHER), *arguments],
        env={**inherited, **_QUICK, **environment},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


def tried(folder: Path, code: str = "", **environment: str):
    """The process and its report; `code` runs when the script has begun."""
    ran = launched(
        str(_SCRIPT), "--offline", "--python-code", code, PDDREGISTRATION_OUT=str(folder), **environment
    )
    path = folder / "report.json"
    assert path.exists(), ran.stderr
    return ran, json.loads(path.read_text(encoding="utf-8"))


def failures(report) -> list[str]:
    return [step["name"] for step in report["steps"] if not (step["passed"] or step["skipped"])]


def names(report) -> list[str]:
    return [step["name"] for step in report["steps"]]


def test_every_step_passes(tmp_path):
    folder = tmp_path / "folder with spaces, ü"
    ran, report = tried(folder)
    assert failures(report) == [], json.dumps(report["steps"], indent=1)
    assert ran.returncode == 0, ran.stderr
    assert report["passed"]
    assert len(report["steps"]) == report["expected_steps"] == 15
    only_the_download_is_skipped(report)
    what_matters_is_measured(report)
    what_is_told_is_there(report, folder)
    text = (folder / "report.txt").read_text(encoding="utf-8")
    assert "15 of 15 steps, 0 failed, 1 skipped" in text
    assert text in ran.stdout


def only_the_download_is_skipped(report):
    (skipped,) = [step for step in report["steps"] if step["skipped"]]
    assert "could not be downloaded" in skipped["message"]


def what_matters_is_measured(report):
    measured = {name: value for step in report["steps"] for name, value in step["measured"].items()}
    assert 0 < measured["longest pause during the run (ms)"] < 400
    assert measured["seconds until it is cancelled"] < 1
    assert measured["mean Dice after"] > measured["mean Dice before"]


def what_is_told_is_there(report, folder):
    """Screenshots, the table and the scene; nothing temporary, nothing failed."""
    taken = {name for step in report["steps"] for name in step["screenshots"]}
    assert {"sample.png", "result.png", "result-panel.png"} <= taken
    assert views.missing() or {"view-checkerboard.png", "view-grid.png", "view-outlines.png"} <= taken
    assert all((folder / name).stat().st_size > 1000 for name in taken)
    found = {path.name for path in folder.iterdir()}
    assert {"report.json", "report.txt", "quality.csv", "scene.mrb"} <= found
    assert not found & {"temporary", "hang.txt"}
    assert list(folder.glob("failed-*")) == []


def test_a_button_that_shows_nothing_fails_its_step_only(tmp_path):
    if views.missing():
        pytest.skip(views.missing())
    code = (
        "from PDDRegistrationLib.display import ResultDisplay\n"
        "ResultDisplay.setOutlines = lambda self, on: setattr(self, 'outlines', on)\n"
    )
    ran, report = tried(tmp_path, code)
    assert ran.returncode == 1
    assert failures(report) == [names(report)[_VIEWS]]
    assert "outlinesButton changes the views" in report["steps"][_VIEWS]["message"]
    assert (
        tmp_path / report["steps"][_VIEWS]["screenshots"][-1]
    ).name == f"failed-{_VIEWS + 1:02d}-panel.png"


def test_a_register_button_that_stays_grey_is_named(tmp_path):
    code = (
        "from PDDRegistrationLib.run_panel import RunPanel\n"
        "def allow(self, reason):\n"
        "    self._ui.registerButton.enabled, self._ui.registerButton.toolTip = False, reason or 'because'\n"
        "RunPanel.allow = allow\n"
    )
    ran, report = tried(tmp_path, code)
    assert ran.returncode == 1
    broken = failures(report)
    assert {names(report)[step] for step in (_SAMPLE, _INPUTS, _REGISTERS, _CANCELS)} <= set(broken)
    assert "because" in report["steps"][_REGISTERS]["message"]
    assert names(report)[_OPENS] not in broken
    assert len(report["steps"]) == report["expected_steps"]


def test_an_error_in_a_slot_fails_the_step(tmp_path):
    code = "from PDDRegistrationLib.run_panel import RunPanel\nRunPanel._onClicked = lambda self, *_: 1 / 0\n"
    ran, report = tried(tmp_path, code)
    assert ran.returncode == 1
    assert "division by zero" in report["steps"][_REGISTERS]["message"]


def test_without_pytorch_it_says_so_and_installs_nothing(tmp_path):
    code = (
        "from in_slicer import steps_registering\n"
        "from PDDRegistrationLib import dependencies, requirements\n"
        "absent = lambda *_, **__: (requirements.Requirement('torch', '2.2'),)\n"
        "steps_registering.missing = dependencies.missing = absent\n"
    )
    ran, report = tried(tmp_path, code)
    assert ran.returncode == 1
    step = report["steps"][_INSTALLED]
    assert not step["passed"]
    assert re.search(r"torch>=2\.2.*PDDREGISTRATION_INSTALL=1", step["message"])
    assert len(report["steps"]) == report["expected_steps"]


def test_a_hanging_application_is_ended_and_the_step_is_named(tmp_path):
    code = (
        "from PDDRegistrationLib.input_panel import InputPanel\n"
        "import time\n"
        "InputPanel._fillPresets = lambda self: time.sleep(600)\n"
    )
    ran, report = tried(tmp_path, code, PDDREGISTRATION_PATIENCE="8")
    assert ran.returncode == 1
    assert failures(report) == [names(report)[_OPENS]]
    assert "hung" in report["steps"][_OPENS]["message"]
    assert "input_panel.py" in (tmp_path / "hang.txt").read_text()  # where it hung


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PDDREGISTRATION_OUT", "", "PDDREGISTRATION_OUT is missing"),
        ("PDDREGISTRATION_SIZE", "large", "three numbers"),
        ("PDDREGISTRATION_LEVELS", "all", "a number is needed"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, name, value, says):
    ran = launched(str(_SCRIPT), **{"PDDREGISTRATION_OUT": str(tmp_path), name: value})
    assert ran.returncode == 1
    assert says in ran.stderr


def test_reload_and_test_passes():
    ran = launched("--reload-and-test")
    assert ran.returncode == 0, ran.stderr
    assert "Test passed" in ran.stdout
    assert "Traceback" not in ran.stderr
