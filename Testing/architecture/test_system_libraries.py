"""Before anything is drawn, a machine that lacks a system library is told what to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import PySide6
import pytest

from desktop import check_libraries

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems' wheels need no system library"
)
ABSENT = {"libno-such-library.so.9": "libno-such-library9", "libnor-this-one.so.1": "libno-such-library9"}


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "Testing" / "desktop" / "check_libraries.py"), *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)


@linux_only
def test_a_machine_with_everything_passes_in_silence(root: Path) -> None:
    finished = run(root)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


@linux_only
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_libraries.main([], check_libraries.LIBRARIES | ABSENT) == 1
    message = capsys.readouterr().err
    assert "Missing on this machine: libno-such-library.so.9, libnor-this-one.so.1." in message
    assert "\n    sudo apt-get install -y libno-such-library9\n" in message


@linux_only
def test_continuous_integration_gets_the_packages_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_libraries.main(["--packages"], check_libraries.LIBRARIES | ABSENT) == 1
    assert capsys.readouterr() == ("libno-such-library9\n", "")


@linux_only
def test_libraries_without_a_driver_behind_them_do_not_pass(root: Path, tmp_path: Path) -> None:
    finished = run(root, "--packages", __EGL_VENDOR_LIBRARY_DIRS=str(tmp_path))
    assert (finished.returncode, finished.stdout) == (1, "libegl-mesa0 libgl1-mesa-dri\n")


def test_another_system_is_not_asked_for_debian_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert check_libraries.main([], ABSENT) == 0


@linux_only
def test_every_system_library_that_qt_is_linked_to_is_looked_for() -> None:
    pyside = Path(PySide6.__file__).parent
    names = ["QtCore.abi3.so", "QtGui.abi3.so", "QtWidgets.abi3.so", "QtTest.abi3.so", "QtUiTools.abi3.so"]
    opened = [*(pyside / name for name in names), pyside / "Qt/plugins/platforms/libqoffscreen.so"]
    assert set().union(*map(beyond_the_wheel, opened)) <= {*check_libraries.LIBRARIES, *C_RUNTIME}


C_RUNTIME = {
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
}
CARRIED = ("libQt6", "libicu", "libpyside6", "libshiboken6")  # in PySide6's own wheels


def beyond_the_wheel(library: Path) -> set[str]:
    """The system libraries that a library of a wheel, or another of its wheel that it needs, is linked to directly."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    environment |= {"LD_DEBUG": "files", "LD_TRACE_LOADED_OBJECTS": "1"}
    trace = subprocess.run(
        [str(loader()), str(library)], env=environment, capture_output=True, text=True, check=True
    )
    needed = re.findall(r"file=(\S+) \[0\];  needed by (\S+)", trace.stderr)
    return {name for name, by in needed if "site-packages" in by and not name.startswith(CARRIED)}


def loader() -> Path:
    """The dynamic loader of the running interpreter."""
    return next(
        Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if "/ld-" in line
    )
