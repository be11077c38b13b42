"""Slicer installs only what CMake lists: the lists hold every tracked file of the module, and no other."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

# The parts of Slicer's build that the extension calls, reduced to copying files to where Slicer has them.
SLICER_CONFIG = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib/qt-scripted-modules)
"""
USE_SLICER = """
function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR" "TARGET_NAME;DESTINATION_DIR;INSTALL_DIR"
    "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_TARGET_NAME OR NOT MY_DESTINATION_DIR OR NOT MY_NO_INSTALL_SUBDIR)
    message(FATAL_ERROR "ctkMacroCompilePythonScript was called with ${ARGN}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION ${MY_INSTALL_DIR}/${folder})
  endforeach()
endfunction()
"""


def listed(cmake: str, variable: str) -> list[str]:
    """The entries of `set(variable ...)` in a CMake text."""
    found = re.search(rf"set\({variable}\s([^)]*)\)", cmake)
    assert found, f"PDDRegistration/CMakeLists.txt does not set {variable}"
    return found[1].split()


@pytest.fixture(scope="module")
def cmake(root: Path) -> str:
    return (root / "PDDRegistration" / "CMakeLists.txt").read_text("utf-8")


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[str]:
    """Every file of the module that git tracks, relative to the module, without the CMake list itself."""
    if not (root / ".git").exists():
        pytest.skip("this is not a git checkout, so there is no list of tracked files to compare with")
    command = ["git", "-C", str(root), "ls-files", "-z", "PDDRegistration"]
    paths = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    files = [path.removeprefix("PDDRegistration/") for path in paths if path]
    return sorted(file for file in files if Path(file).name != "CMakeLists.txt")


def test_a_list_is_read_up_to_its_bracket() -> None:
    assert listed("set(OTHER x)\nset(A\n  a.py\n  b/c.py\n  )\nset(B d.py)", "A") == ["a.py", "b/c.py"]


def test_the_scripts_are_the_tracked_python_files_in_order(cmake: str, tracked: list[str]) -> None:
    assert listed(cmake, "MODULE_PYTHON_SCRIPTS") == [file for file in tracked if file.endswith(".py")]


def test_the_resources_are_all_other_tracked_files_in_order(cmake: str, tracked: list[str]) -> None:
    assert listed(cmake, "MODULE_PYTHON_RESOURCES") == [file for file in tracked if not file.endswith(".py")]


@pytest.mark.skipif(
    not shutil.which("cmake") or not shutil.which("c++"), reason="needs cmake and a C++ compiler"
)
def test_an_installed_extension_holds_every_tracked_file(
    root: Path, tracked: list[str], tmp_path: Path
) -> None:
    stand_in, build, installed = tmp_path / "slicer", tmp_path / "build", tmp_path / "installed"
    stand_in.mkdir()
    (stand_in / "SlicerConfig.cmake").write_text(SLICER_CONFIG, "utf-8")
    (stand_in / "UseSlicer.cmake").write_text(USE_SLICER, "utf-8")
    (stand_in / "Nothing.cmake").touch()
    configure = ["cmake", "-S", str(root), "-B", str(build), f"-DSlicer_DIR={stand_in}", "-Werror=dev"]
    subprocess.run(configure, check=True, capture_output=True, text=True)
    subprocess.run(
        ["cmake", "--install", str(build), "--prefix", str(installed)], check=True, capture_output=True
    )
    modules = installed / "lib" / "qt-scripted-modules"
    files = sorted(f.relative_to(modules).as_posix() for f in modules.rglob("*") if f.is_file())
    assert files == tracked
