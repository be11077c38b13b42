"""A worker that waits: used by the very next run if it can be, replaced unnoticed if not, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import qt
import slicer

from desktop import widgets
from desktop.panel import openPanel, volume
from desktop.scans import addPair
from pddnet.job import DescribeRequest, Started, Succeeded, write_request
from PDDRegistrationLib import next_worker
from PDDRegistrationLib.child_process import ChildProcess
from PDDRegistrationLib.event_loop import QtEventLoop
from PDDRegistrationLib.logic import RegistrationLogic
from PDDRegistrationLib.next_worker import NextWorker
from PDDRegistrationLib.python_environment import workerLaunch
from PDDRegistrationLib.requirements import missing
from PDDRegistrationLib.runner import WorkerRun
from PDDRegistrationLib.settings import RegistrationSettings
from PDDRegistrationLib.warm_worker import WarmWorker
from PDDRegistrationLib.widget import makePanel

WORKER = """
import json, os, sys, time
def say(**event):
    print(json.dumps(event), flush=True)
waited = sys.argv[1] == "--wait"
{first}
folder = sys.stdin.readline().rstrip("\\n") if waited else sys.argv[1]
if waited and not folder:
    os._exit(3)
assert "--private" in sys.argv
{then}
say(event="started", pid=os.getpid(), versions={{}})
{last}
say(event="result", files={{}}, report={{"waited": waited, "there": os.path.isdir(folder)}})
"""


@pytest.fixture
def warm():
    made = WarmWorker()
    yield made
    made.close()


@pytest.fixture
def command(tmp_path: Path):
    """Makes the command of a worker of a few lines: what it does first, when it is told its folder, in the end."""

    def make(first: str = "", then: str = "", last: str = "") -> list[str]:
        program = tmp_path / "worker.py"
        program.write_text(WORKER.format(first=first, then=textwrap.dedent(then), last=last))
        return [sys.executable, str(program)]

    return make


def children() -> list[int]:
    text = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in text.split()]


def heard(run: WorkerRun, until=None) -> list:
    events, end = [], time.monotonic() + 120.0
    while not run.over:
        assert time.monotonic() < end, events
        events += run.poll()
        if until and any(isinstance(event, until) for event in events):
            break
        time.sleep(0.005)
    return events


def served(run: WorkerRun) -> list:
    with run:
        run.start()
        return heard(run)


def wait(done, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        qt.QApplication.processEvents()
        time.sleep(0.002)


def test_a_run_is_served_by_the_process_that_waited_and_the_next_one_is_not(warm, command) -> None:
    program = command()
    warm.prepare(program, None)
    pid = warm.pid
    assert children() == [pid]
    events = served(WorkerRun(program, warm=warm))
    assert events[0] == Started(pid, {})
    assert events[-1] == Succeeded({}, {"waited": True, "there": True})
    assert warm.pid == 0
    events = served(WorkerRun(program, warm=warm))
    assert events[0].pid != pid
    assert events[-1].report["waited"] is False
    assert children() == []


def test_preparing_twice_keeps_the_process_and_for_another_python_replaces_it(warm, command) -> None:
    program = command()
    warm.prepare(program, {"A": "1"})
    pid = warm.pid
    warm.prepare(program, {"A": "1"})
    assert warm.pid == pid
    warm.prepare(program, {"A": "2"})
    assert warm.pid not in (0, pid)
    assert children() == [warm.pid]


@pytest.mark.parametrize("other", ["python", "environment"])
def test_the_worker_of_another_python_is_not_used_and_is_ended(warm, command, other: str) -> None:
    program = command()
    warm.prepare(["env", *program] if other == "python" else program, {"A": "1"})
    pid = warm.pid
    events = served(WorkerRun(program, {"A": "2"} if other == "environment" else {"A": "1"}, warm=warm))
    assert events[0].pid != pid
    assert events[-1].report["waited"] is False
    assert children() == []


def test_a_worker_that_died_while_it_waited_is_replaced(warm, command) -> None:
    program = command()
    warm.prepare(program, None)
    pid = warm.pid
    os.kill(pid, signal.SIGKILL)
    wait(lambda: warm.pid == 0)
    events = served(WorkerRun(program, warm=warm))
    assert [type(event) for event in events] == [Started, Succeeded]
    assert events[-1].report["waited"] is False
    assert children() == []


DYING = """
if waited:
    sys.stderr.write("a last sigh"); sys.stderr.flush()
    os.kill(os.getpid(), 9)
"""


def test_a_worker_that_dies_when_it_is_told_its_folder_is_replaced_unnoticed(warm, command) -> None:
    program = command(then=DYING)
    warm.prepare(program, None)
    events = served(WorkerRun(program, warm=warm))
    assert [type(event) for event in events] == [Started, Succeeded]
    assert events[-1].report == {"waited": False, "there": True}
    assert children() == []


def test_a_worker_that_dies_after_it_began_is_not_started_again(warm, command) -> None:
    program = command(last=DYING.replace("if waited", "if True"))
    warm.prepare(program, None)
    events = served(WorkerRun(program, warm=warm))
    assert events[-1].code == "memory"
    assert len([event for event in events if isinstance(event, Started)]) == 1


def test_a_worker_that_hears_nothing_any_more_is_replaced(warm, command) -> None:
    program = command(first="if waited: os.close(0); say(); time.sleep(60)")
    warm.prepare(program, None)
    child = warm._child
    wait(lambda: next(child.lines(), ""))
    events = served(WorkerRun(program, warm=warm))
    assert events[-1].report["waited"] is False
    assert children() == []


def test_what_cannot_be_started_is_not_prepared_and_said_by_the_run(warm) -> None:
    warm.prepare(["/missing/python"], None)
    assert warm.pid == 0
    (failure,) = served(WorkerRun(["/missing/python"], warm=warm))
    assert failure.code == "python"


def test_cancel_right_after_it_was_taken_leaves_nothing(warm, command, tmp_path: Path) -> None:
    program = command()
    warm.prepare(program, None)
    with WorkerRun(program, warm=warm, temporaryFolder=tmp_path) as run:
        run.start()
        assert len(children()) == 1
        before = time.monotonic()
        run.cancel()
        assert time.monotonic() - before < 1.0
        assert run.poll() == []
        assert children() == []
    assert [path.name for path in tmp_path.iterdir()] == ["worker.py"]


def test_closing_ends_even_a_stopped_process_at_once(warm, command) -> None:
    warm.prepare(command(), None)
    os.kill(warm.pid, signal.SIGSTOP)
    before = time.monotonic()
    warm.close()
    assert time.monotonic() - before < 1.0
    assert children() == []


SAYING = """
import signal, sys, time
from pathlib import Path
from PDDRegistrationLib.child_process import ChildProcess
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
child = ChildProcess([sys.executable, "-c", ""], None, Path.cwd())
while child.exitCode is None:
    time.sleep(0.01)
{how}
print("alive")
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [("assert not child.say('folder')", 0), ("child._process.stdin.write(b'folder')", -signal.SIGPIPE)],
    ids=["say", "a plain write"],
)
def test_an_application_that_does_not_ignore_broken_pipes_survives_one(root, how: str, code: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    source = [sys.executable, "-c", SAYING.format(how=how)]
    ran = subprocess.run(source, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, "alive" in ran.stdout) == (code, code == 0), ran.stderr


def test_a_folder_whose_name_has_two_lines_is_not_told(tmp_path: Path) -> None:
    child = ChildProcess(["cat"], None, tmp_path)
    assert not child.say("two\nlines")
    assert child.say("one")
    end = time.monotonic() + 5
    while not (said := list(child.lines())):
        assert time.monotonic() < end
    assert said == ["one"]
    assert child.end()
    assert not child.say("too late")


# --- the real worker


def test_the_real_worker_that_waited_answers_and_has_low_priority(warm, tmp_path: Path) -> None:
    launch = workerLaunch("", slicer)
    warm.prepare(*launch)
    pid = warm.pid
    wait(lambda: os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0))
    with WorkerRun(*launch, warm=warm, temporaryFolder=tmp_path) as run:
        write_request(run.folder, DescribeRequest())
        run.start()
        events = heard(run)
    assert events[0].pid == pid
    assert "cpu" in events[-1].report["devices"]
    assert children() == []
    assert list(tmp_path.iterdir()) == []


PARENT = """
import sys, time
from PDDRegistrationLib.python_environment import workerCommand, workerEnvironment
from PDDRegistrationLib.warm_worker import WarmWorker
warm = WarmWorker()
warm.prepare(workerCommand("", object()), workerEnvironment("", dict))
print(warm.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("after", [0.3, 3.0], ids=["while it loads", "while it waits"])
def test_the_waiting_worker_goes_when_the_application_is_killed(root, after: float) -> None:
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(after)
        assert Path(f"/proc/{pid}").exists()
        parent.send_signal(signal.SIGKILL)
    wait(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text(), 20.0)


# --- when the panel prepares one


class DrivenLoop:
    """An event loop whose time passes when the test says so."""

    def __init__(self):
        self.waiting, self.now = [], 0

    def later(self, milliseconds, function):
        self.waiting.append((self.now + milliseconds, function))

    def pass_(self, milliseconds):
        self.now += milliseconds
        due = [entry for entry in self.waiting if entry[0] <= self.now]
        self.waiting = [entry for entry in self.waiting if entry[0] > self.now]
        for _, function in due:
            function()


@pytest.fixture
def loop():
    return DrivenLoop()


@pytest.fixture
def upcoming(loop, command, monkeypatch):
    """A `NextWorker` of a light worker, on a loop that the test drives."""
    program = command()
    monkeypatch.setattr(next_worker, "workerLaunch", lambda python, _slicer: (program, {"A": python}))
    made = NextWorker(loop, installed=lambda: True)
    yield made
    made.close()


def test_a_worker_is_prepared_after_a_pause_and_ended_after_ten_idle_minutes(loop, upcoming) -> None:
    upcoming.prepare(RegistrationSettings())
    assert children() == []  # results are shown first
    loop.pass_(1000)
    assert children() == [upcoming.warm.pid]
    loop.pass_(9 * 60_000)
    assert children() == [upcoming.warm.pid]
    loop.pass_(60_000)
    assert children() == []


def test_a_second_run_gives_the_worker_after_it_ten_minutes_of_its_own(loop, upcoming) -> None:
    upcoming.prepare(RegistrationSettings())
    loop.pass_(1000)
    upcoming.hold()
    loop.pass_(9 * 60_000)  # of computing, or of exporting before the worker is taken
    assert upcoming.warm.pid
    upcoming.prepare(RegistrationSettings())
    loop.pass_(1000)
    loop.pass_(5 * 60_000)
    assert children() == [upcoming.warm.pid]


@pytest.mark.parametrize("what", ["hold", "close"])
def test_none_is_started_beside_a_run_or_after_the_end(loop, upcoming, what: str) -> None:
    upcoming.prepare(RegistrationSettings())
    getattr(upcoming, what)()
    loop.pass_(1000)
    assert children() == []


def test_none_is_started_where_the_packages_are_missing(loop, upcoming) -> None:
    upcoming._installed = lambda: False
    upcoming.prepare(RegistrationSettings())
    loop.pass_(1000)
    assert children() == []
    upcoming.prepare(RegistrationSettings(python="another"))  # whose packages are its own
    loop.pass_(1000)
    assert children() == [upcoming.warm.pid]


@pytest.fixture
def driven(scene):
    """A panel in which Register was pressed, on a logic that the test drives."""
    with openPanel(scene) as panel:
        panel.ui.fixedSelector.setCurrentNode(volume("fixed"))
        panel.ui.movingSelector.setCurrentNode(volume("moving"))
        panel.ui.registerButton.click()
        yield panel


def test_the_panel_prepares_a_worker_when_a_run_has_ended_and_not_before(driven) -> None:
    assert driven.logic.calls[0][1]["warm"] is driven.nextWorker.warm
    assert driven.nextWorker.calls == ["hold"]
    driven.ui.registerButton.click()  # cancels
    assert driven.nextWorker.calls == ["hold", driven.parameters.settings()]


def test_a_failed_run_is_followed_by_a_prepared_worker_too(driven, monkeypatch) -> None:
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda *_, **__: None)
    driven.logic.fail(RuntimeError("crashed"))
    assert driven.nextWorker.calls == ["hold", driven.parameters.settings()]


@pytest.mark.parametrize("end", ["the panel", "the scene"])
def test_closing_the_panel_or_the_scene_during_a_run_prepares_nothing(driven, scene, end: str) -> None:
    if end == "the scene":
        scene.Clear(False)
    else:
        driven.close()
    assert driven.nextWorker.calls[:2] == ["hold", "close"]
    assert set(driven.nextWorker.calls) == {"hold", "close"}


@pytest.fixture
def panel(root, scene, tmp_path, monkeypatch):
    """The module's own panel and logic with two small scans chosen."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert missing() == ()
    widgets.application()
    logic = RegistrationLogic(scene, QtEventLoop())
    made = makePanel(str(root / "PDDRegistration" / "Resources" / "UI" / "PDDRegistration.ui"), logic)
    made.enter()
    pair = addPair(scene)
    made.ui.fixedSelector.setCurrentNode(pair.fixed)
    made.ui.movingSelector.setCurrentNode(pair.moving)
    made.inputs.controls["preset"].show("fast")
    made.ui.levelsSpinBox.setValue(1)
    yield made
    made.close()
    assert children() == []


def registered(panel) -> list[int]:
    """Register; the processes that there were on the way."""
    seen = []
    panel.ui.registerButton.click()
    wait(lambda: seen.extend(children()) or not panel.busy)
    assert panel.result is not None, panel.ui.statusLabel.text
    return seen


def test_the_panels_second_run_is_served_by_the_worker_that_waited(panel) -> None:
    registered(panel)
    wait(lambda: panel.nextWorker.warm.pid)
    pid = panel.nextWorker.warm.pid
    assert children() == [pid]
    assert set(registered(panel)) == {pid}
    wait(lambda: panel.nextWorker.warm.pid)
    assert panel.nextWorker.warm.pid != pid  # one job each
    panel.close()
    assert children() == []


def test_a_run_that_crashes_does_no_harm_to_the_next(panel, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: told.append(text))
    registered(panel)
    wait(lambda: panel.nextWorker.warm.pid)
    pid = panel.nextWorker.warm.pid
    panel.ui.registerButton.click()
    wait(lambda: panel.run.task is None or panel.run.task.progress.fraction > 0.06)
    os.kill(pid, signal.SIGSEGV)
    wait(lambda: not panel.busy)
    assert "SIGSEGV" in told[0]
    wait(lambda: panel.nextWorker.warm.pid)
    after = panel.nextWorker.warm.pid
    assert after != pid
    assert set(registered(panel)) == {after}


def test_closing_the_scene_ends_the_waiting_worker(panel, scene) -> None:
    registered(panel)
    wait(lambda: panel.nextWorker.warm.pid)
    scene.Clear(False)
    assert children() == []


def test_scripts_leave_no_process(panel) -> None:
    fixed, moving = (panel.ui.fixedSelector.currentNode(), panel.ui.movingSelector.currentNode())
    panel.logic.register(fixed, moving, preset="fast", levels=1)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        qt.QApplication.processEvents()
    assert children() == []
