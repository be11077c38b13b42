"""What a process sets up before PyTorch, and says about itself without importing it."""

from __future__ import annotations

import gc
import importlib.metadata
import platform
import subprocess
import sys
from contextlib import suppress

import pytest

from pddnet.process import (
    installed_versions,
    keep_freed_memory,
    let_waiting_threads_sleep,
    without_garbage_collection,
)


def test_versions_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = installed_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == importlib.metadata.version("torch")

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert installed_versions() == {"python": platform.python_version()}


def test_what_the_user_set_about_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_waiting_threads_sleep()
    import os

    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


_FAULTS_OF_A_SECOND_ARRAY = """
import resource
from pddnet.process import keep_freed_memory
{}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    before = faults()
    array = bytes(bytearray(1 << 25))
    del array
    count = faults() - before
print(count)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_memory_that_was_freed_is_used_again_without_fresh_pages() -> None:
    def pages(call: str) -> int:
        command = [sys.executable, "-c", _FAULTS_OF_A_SECOND_ARRAY.format(call)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert pages("keep_freed_memory()") < pages("") / 4


def test_where_no_such_thing_can_be_asked_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("ctypes.CDLL", none)
    monkeypatch.setattr(sys, "platform", "win32")
    keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # a C library without it
    keep_freed_memory()


def test_a_program_ends_at_once_with_its_code_and_all_that_it_said() -> None:
    code = "import atexit; from pddnet.process import leave_at_once; atexit.register(print, 'late'); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('said', end=''); leave_at_once(3)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "said", "")


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_is_collected_again_after_an_import_that_fails(was_on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with suppress(ImportError), without_garbage_collection():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()
