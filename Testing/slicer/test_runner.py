"""A worker's process is heard without waiting, its failures are named, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
import slicer

from pddnet.job import Alive, DescribeRequest, Failed, Logged, Progressed, Started, Succeeded, write_request
from PDDRegistrationLib import child_process
from PDDRegistrationLib.child_process import ChildProcess
from PDDRegistrationLib.diagnosis import diagnosis
from PDDRegistrationLib.python_environment import chosenPython, slicerPython, workerCommand, workerEnvironment
from PDDRegistrationLib.runner import Patience, WorkerRun, _Watch
from PDDRegistrationLib.settings import RegistrationError, RegistrationSettings

PRELUDE = """
import json, os, signal, subprocess, sys, threading, time
def say(**event):
    print(json.dumps(event), flush=True)
def started(pid=None):
    say(event="started", pid=pid or os.getpid(), versions={})
def result():
    say(event="result", files={}, report={"done": True})
folder = sys.argv[1]
assert sys.argv[2] == "--private"
"""


@pytest.fixture
def begin(tmp_path: Path):
    """Starts a run of a worker with this source text; closes it in the end."""
    runs = []

    def make(source: str, **kwargs) -> WorkerRun:
        program = tmp_path / f"worker{len(runs)}.py"
        program.write_text(PRELUDE + textwrap.dedent(source), encoding="utf-8")
        run = WorkerRun([sys.executable, str(program)], temporaryFolder=tmp_path, **kwargs)
        runs.append(run)
        run.start()
        return run

    yield make
    for run in runs:
        run.close()


def heard(run: WorkerRun, seconds: float = 20.0, until=None) -> list:
    """The events up to the last one, or up to the first of the type `until`."""
    events, end = [], time.monotonic() + seconds
    while not run.over and time.monotonic() < end:
        events += run.poll()
        if until and any(isinstance(event, until) for event in events):
            return events
        time.sleep(0.005)
    assert run.over, f"nothing final in {seconds} s; heard {events[-5:]}"
    return events


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone(pid: int, seconds: float = 2.0) -> bool:
    end = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not lives(pid)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def worker_pid(run: WorkerRun) -> int:
    return next(event.pid for event in heard(run, until=Started) if isinstance(event, Started))


def test_events_arrive_in_order_and_the_result_is_the_last() -> None:
    source = PRELUDE + (
        "started(7)\nsay(event='progress', stage='level 1', fraction=0.25, message='level 1 of 4')\n"
        "say(event='alive', ticks=3)\nresult()\nprint('too late')"
    )
    with WorkerRun([sys.executable, "-c", source]) as run:
        run.start()
        events = heard(run)
        assert [type(event) for event in events] == [Started, Progressed, Alive, Succeeded]
        assert events[1].fraction == 0.25
        assert events[-1].report == {"done": True}
        assert run.poll() == []


def test_the_folder_is_private_and_goes_with_its_files(begin) -> None:
    run = begin("started(); open(os.path.join(folder, 'array.npy'), 'w').close(); result()")
    heard(run)
    assert stat.S_IMODE(run.folder.stat().st_mode) == 0o700
    assert (run.folder / "array.npy").exists()
    run.close()
    assert not run.folder.exists()


def test_a_folder_that_cannot_be_made_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match="Free space on that disk") as caught:
        WorkerRun(["python"], temporaryFolder=tmp_path / "missing")
    assert caught.value.code == "files"


def test_a_run_leaves_no_thread_pipe_process_or_file(begin, tmp_path: Path) -> None:
    threads, before = threading.active_count(), descriptors()
    for number in range(6):
        run = begin("started(); time.sleep(60)" if number % 2 else "started(); result()")
        pid = worker_pid(run)
        run.close()
        assert gone(pid)
    assert threading.active_count() == threads
    assert descriptors() == before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".py"] * 6


IGNORES_EVERYTHING = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
started()
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(IGNORES_EVERYTHING, id="deaf to stdin and signals"),
        pytest.param("started()\nwhile True: pass", id="computing"),
        pytest.param("started()\nwhile True: print('x' * 200)", id="flooding"),
        pytest.param(
            "started()\nfor n in range(10**6): open(os.path.join(folder, str(n)), 'w').write('x' * 999)",
            id="writing files",
        ),
        pytest.param("started(); os.kill(os.getpid(), signal.SIGSTOP)", id="stopped"),
    ],
)
def test_cancel_takes_less_than_a_second_whatever_the_worker_does(begin, source: str) -> None:
    run = begin(source)
    pid = worker_pid(run)
    time.sleep(0.2)
    before = time.monotonic()
    run.cancel()
    assert time.monotonic() - before < 1.0
    assert not run.folder.exists()
    assert gone(pid)
    assert run.poll() == []
    run.cancel()


def test_cancel_works_before_and_right_after_the_start(begin, tmp_path: Path) -> None:
    run = WorkerRun([sys.executable], temporaryFolder=tmp_path)
    run.cancel()
    assert run.over
    assert not run.folder.exists()
    with pytest.raises(RuntimeError, match="make another one"):
        run.start()
    early = begin("time.sleep(60)")
    before = time.monotonic()
    early.cancel()
    early.cancel()
    assert time.monotonic() - before < 1.0
    assert not early.folder.exists()


LAUNCHER = """
inner = "import json, os, signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; " + {setup!r} + \\
    "print(json.dumps(dict(event='started', pid=os.getpid(), versions=dict())), flush=True); time.sleep(600)"
raise SystemExit(subprocess.call([sys.executable, "-c", inner]))
"""


@pytest.mark.parametrize("setup", ["", "os.setpgid(0, 0); "], ids=["same group", "its own group"])
def test_the_worker_behind_a_launcher_dies_too(begin, setup: str) -> None:
    run = begin(LAUNCHER.format(setup=setup))
    pid = worker_pid(run)
    assert lives(pid)
    run.cancel()
    assert gone(pid)


def test_what_a_crashed_worker_started_dies_too(begin) -> None:
    run = begin(
        """
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        started(child.pid)
        os._exit(3)
        """
    )
    events = heard(run)
    assert events[-1].code == "crash"
    assert gone(events[0].pid)


def test_the_pid_of_a_process_that_is_not_ours_is_left_alone(begin) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        run = begin(f"started({stranger.pid}); time.sleep(60)")
        heard(run, until=Started)
        run.cancel()
        time.sleep(0.1)
        assert stranger.poll() is None
        stranger.kill()


def test_killed_without_our_asking_means_out_of_memory(begin) -> None:
    events = heard(begin("started(); os.kill(os.getpid(), signal.SIGKILL)"))
    assert events[-1].code == "memory"
    assert "'fast'" in events[-1].message


@pytest.mark.parametrize(
    ("exit_code", "last_words", "code"),
    [
        (137, "", "memory"),
        (0xC0000017, "", "memory"),
        (1, "error: [/opt/python-real] exit abnormally - Report the problem.", "memory"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "memory"),
        (1, "Fatal Python error: Segmentation fault\nerror: [python] exit abnormally", "crash"),
        (-11, "", "crash"),
        (0xC0000005, "", "crash"),
        (3, "last words", "crash"),
        (0, "", "crash"),
    ],
)
def test_the_end_of_a_worker_is_told_apart(exit_code: int, last_words: str, code: str) -> None:
    failure = diagnosis(exit_code, last_words, "python", hadStarted=True)
    assert failure.code == code
    assert "scene is unchanged" in failure.message


def test_a_crash_shows_the_last_line_and_keeps_the_rest(begin) -> None:
    events = heard(begin("started(); sys.stderr.write('first\\nlast words\\n'); sys.exit(3)"))
    failure = events[-1]
    assert (failure.code, failure.details) == ("crash", "exit code 3\nfirst\nlast words")
    assert "exit code 3" in failure.message
    assert '"last words"' in failure.message


def test_the_list_of_modules_after_a_crash_is_not_taken_for_last_words() -> None:
    words = 'Fatal Python error: Aborted\n  File "engine.py", line 7\n\nExtension modules: numpy, torch (total: 2)'
    assert 'line 7"' in diagnosis(-6, words, "python", hadStarted=True).message
    assert "said last" not in diagnosis(-6, "Extension modules: numpy", "python", hadStarted=True).message


def test_a_real_segmentation_fault_is_named_and_shows_its_place(begin) -> None:
    environment = workerEnvironment("", dict)
    events = heard(begin("started(); os.kill(os.getpid(), signal.SIGSEGV)", environment=environment))
    assert "SIGSEGV" in events[-1].message
    assert "Fatal Python error" in events[-1].details


def test_standard_error_is_kept_only_at_its_end(begin) -> None:
    source = "started()\nfor n in range(200000): sys.stderr.write(f'line {n}\\n')\nos._exit(2)"
    failure = heard(begin(source))[-1]
    assert failure.details.endswith("line 199999")
    assert len(failure.details) < 10_000


@pytest.mark.parametrize("program", ["missing/python", "file-that-is-no-program"])
def test_a_python_that_cannot_be_started_is_an_event_with_a_remedy(tmp_path: Path, program: str) -> None:
    (tmp_path / "file-that-is-no-program").write_text("text")
    with WorkerRun([str(tmp_path / program)]) as run:
        run.start()
        (failure,) = run.poll()
        assert failure.code == "python"
        assert "Advanced" in failure.message
        assert run.over


def test_a_program_that_is_no_worker_is_a_matter_of_the_python_chosen() -> None:
    with WorkerRun([sys.executable, "-m", "no_such_worker"]) as run:
        run.start()
        failure = heard(run)[-1]
    assert failure.code == "python"
    assert "no_such_worker" in failure.message


def test_silence_ends_in_a_kill(begin) -> None:
    run = begin("started(); time.sleep(600)", patience=Patience(silence=0.5))
    events = heard(run)
    assert events[-1].code == "hang"
    assert gone(events[0].pid)


def test_signs_of_life_without_movement_end_in_a_kill(begin) -> None:
    source = "started()\nwhile True: say(event='alive', ticks={ticks}); time.sleep(0.02)"
    patience = Patience(silence=5.0, standstill=0.5)
    assert heard(begin(source.format(ticks=4), patience=patience))[-1].code == "hang"
    moving = begin(source.format(ticks="time.monotonic_ns()"), patience=patience)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert not any(isinstance(event, Failed) for event in moving.poll())
        time.sleep(0.01)


def test_time_in_which_nobody_listened_does_not_count() -> None:
    watch = _Watch(Patience(silence=60.0))
    assert watch.problem([Alive(1)], 0.0) == ""
    assert watch.problem([], 5000.0) == ""  # the computer slept
    assert watch.problem([], 5030.0) == ""
    assert any(watch.problem([], 5030.0 + second) for second in range(1, 70))


def test_a_line_that_is_no_event_is_kept_as_a_message(begin) -> None:
    source = """
    started()
    print("Downloading weights")
    print('{"event": "dance"}')
    print('[1, 2]')
    sys.stdout.buffer.write(b"\\xff\\xfe broken\\r\\n" + b"y" * 9000 + b"\\n")
    sys.stdout.flush()
    result()
    sys.stdout.write("no end of line")
    """
    events = heard(begin(source))
    messages = [event.message for event in events if isinstance(event, Logged)]
    assert messages[:3] == ["Downloading weights", '{"event": "dance"}', "[1, 2]"]
    assert messages[3].endswith(" broken")
    assert len(messages[4]) == 2000
    assert isinstance(events[-1], Succeeded)


def test_a_last_event_without_an_end_of_line_counts(begin) -> None:
    event = json.dumps({"event": "error", "code": "input", "message": "choose another", "details": ""})
    events = heard(begin(f"started(); sys.stdout.write({event!r}); sys.stdout.flush(); os._exit(1)"))
    assert events[-1] == Failed("input", "choose another")


def test_the_workers_own_error_is_passed_on(begin) -> None:
    source = "started(); say(event='error', code='device', message='no cuda', details='trace'); sys.exit(1)"
    assert heard(begin(source))[-1] == Failed("device", "no cuda", "trace")


def test_a_flood_of_lines_neither_holds_the_caller_nor_gets_lost(begin) -> None:
    source = "started()\nfor n in range(10000): print('line', n)\nsys.stdout.flush(); result()"
    run, longest, events = begin(source), 0.0, []
    while not run.over:
        before = time.thread_time()
        events += run.poll()
        longest = max(longest, time.thread_time() - before)
        time.sleep(0.001)
    assert [e.message for e in events if isinstance(e, Logged)] == [f"line {n}" for n in range(10000)]
    assert longest < 0.05


def test_output_nobody_asks_for_stays_with_the_writer(tmp_path: Path) -> None:
    source = "import sys\nwhile True: sys.stdout.write('z' * 1000)"  # not even an end of line
    child = ChildProcess([sys.executable, "-c", source], None, tmp_path)
    try:
        time.sleep(0.5)
        end = time.monotonic() + 1.0
        lines = child.lines()
        while time.monotonic() < end:
            next(lines, "")
            assert len(child._unfinished) < 1 << 24
    finally:
        assert child.end()


def test_a_result_of_some_megabytes_arrives_whole(begin) -> None:
    source = "started(); say(event='result', files={}, report={'text': 'ü' * 1000000, 'list': list(range(200000))})"
    result = heard(begin(source))[-1]
    assert len(result.report["text"]) == 1000000
    assert result.report["list"][-1] == 199999


LEAVES_WITH_ITS_PARENT = """
import shutil
def leave():
    sys.stdin.buffer.read()
    if os.path.exists(os.path.join(folder, "request.json")):
        shutil.rmtree(folder)
    os._exit(4)
threading.Thread(target=leave, daemon=True).start()
started()
time.sleep(600)
"""
PARENT = """
import sys, time
from PDDRegistrationLib.runner import WorkerRun
run = WorkerRun([sys.executable, {worker!r}], temporaryFolder={parent!r})
(run.folder / "request.json").write_text("{{}}")
run.start()
while True:
    for event in run.poll():
        if event.event == "started":
            print(event.pid, run.folder, flush=True)
    time.sleep(0.01)
"""

REAL_PARENT = """
import time
from pddnet.job import SyntheticRequest, write_request
from PDDRegistrationLib.python_environment import workerCommand, workerEnvironment
from PDDRegistrationLib.runner import WorkerRun
run = WorkerRun(workerCommand("", object()), workerEnvironment("", dict), temporaryFolder={parent!r})
write_request(run.folder, SyntheticRequest())
run.start()
while True:
    for event in run.poll():
        if event.event == "started":
            print(event.pid, flush=True)
    time.sleep(0.01)
"""


def test_the_worker_and_its_folder_go_when_the_parent_is_killed(tmp_path: Path, root: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(PRELUDE + LEAVES_WITH_ITS_PARENT)
    source = PARENT.format(worker=str(worker), parent=str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, env=environment) as parent:
        pid, folder = parent.stdout.readline().decode().split()
        assert lives(int(pid))
        parent.send_signal(signal.SIGKILL)
    assert gone(int(pid))
    assert not Path(folder).exists()


def test_slicers_own_python_is_beside_the_application(tmp_path: Path, monkeypatch) -> None:
    class FakeSlicer:
        class app:  # noqa: N801
            slicerHome = str(tmp_path)  # noqa: N815

    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert slicerPython(FakeSlicer) == sys.executable
    launcher = tmp_path / "bin" / "PythonSlicer"
    launcher.parent.mkdir()
    launcher.touch(mode=0o755)
    assert workerCommand("", FakeSlicer) == [str(launcher), "-m", "pddnet.worker"]
    assert workerCommand("/other/python", FakeSlicer)[0] == "/other/python"
    monkeypatch.setenv("PATH", str(launcher.parent))
    assert slicerPython(object()) == str(launcher)


def test_an_environments_folder_stands_for_its_python(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").touch()
    assert chosenPython(str(tmp_path)) == str(tmp_path / "bin" / "python3")
    assert chosenPython("python3.12") == "python3.12"


def test_slicers_own_python_keeps_slicers_variables(root: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/slicer/site-packages")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/slicer/lib")
    monkeypatch.setenv("QT_PLUGIN_PATH", "/slicer/plugins")
    variables = workerEnvironment("", lambda: pytest.fail("not asked for Slicer's own Python"))
    folders = variables["PYTHONPATH"].split(os.pathsep)
    assert folders == [str(root / "PDDRegistration"), "/slicer/site-packages"]
    assert variables["LD_LIBRARY_PATH"] == "/slicer/lib"
    assert "QT_PLUGIN_PATH" not in variables
    assert os.environ["QT_PLUGIN_PATH"] == "/slicer/plugins"


def test_another_python_gets_the_variables_from_before_slicer(root: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/slicer/python")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/slicer/lib")
    before = {
        "PATH": "/usr/bin",
        "LD_LIBRARY_PATH": "/home/cuda",
        "PYTHONPATH": "/home/mine",
        "PYTHONHOME": "/x",
    }
    variables = workerEnvironment("/env/bin/python", lambda: before)
    assert variables["PYTHONPATH"] == str(root / "PDDRegistration")
    assert variables["PATH"] == os.pathsep.join(["/env/bin", "/usr/bin"])
    assert variables["LD_LIBRARY_PATH"] == "/home/cuda"
    assert "PYTHONHOME" not in variables
    assert before["PYTHONHOME"] == "/x"


@pytest.mark.parametrize("python", ["", sys.executable], ids=["Slicer's own", "another"])
def test_the_real_worker_answers_and_leaves_nothing(tmp_path: Path, monkeypatch, python: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(slicer.util, "startupEnvironment", lambda: dict(os.environ))
    with WorkerRun.forSettings(RegistrationSettings(python=python)) as run:
        write_request(run.folder, DescribeRequest())
        run.start()
        events = heard(run, seconds=60)
        assert isinstance(events[0], Started)
        assert "cpu" in events[-1].report["devices"]
    assert gone(events[0].pid)
    assert list(tmp_path.iterdir()) == []


def test_the_real_worker_and_its_folder_go_when_the_parent_is_killed(tmp_path: Path, root: Path) -> None:
    source = REAL_PARENT.format(parent=str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, env=environment) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)  # while it loads PyTorch
        assert lives(pid)
        parent.send_signal(signal.SIGKILL)
    assert gone(pid, seconds=5.0)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_that_is_slow_to_go_is_remembered_and_let_go_later(monkeypatch):
    monkeypatch.setattr(child_process, "_LAST_MOMENTS", 0.0)
    monkeypatch.setattr(child_process, "_killGroup", lambda *_: None)  # it does not go at once
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = child_process.ChildProcess(sleeping, None, Path.cwd())
    process = child._process
    assert not child.end()
    assert process in child_process._dying
    process.kill()
    process_gone = time.monotonic() + 10
    while child_process._dying and time.monotonic() < process_gone:
        child_process._buryTheDead()
        time.sleep(0.01)
    assert child_process._dying == []
    assert process.returncode is not None
