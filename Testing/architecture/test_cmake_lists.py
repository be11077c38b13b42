"""Slicer installs only what CMake lists: the lists hold every tracked file of the module, and no other.

cmake configures and installs the extension against stand-ins of Slicer's macros (the folder slicer-build).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CMAKE = Path(sys.executable).with_name("cmake")  # of requirements-dev.txt
# The extension compiles nothing: that project() finds a compiler is taken as given.
NO_COMPILER = [
    f"-DCMAKE_{language}_COMPILER{setting}"
    for language in ("C", "CXX")
    for setting in (f"={sys.executable}", "_FORCED=ON", "_ID_RUN=1")
]


def listed(cmake: str, variable: str) -> list[str]:
    """The entries of `set(variable ...)` in a CMake text."""
    found = re.search(rf"set\({variable}\s([^)]*)\)", cmake)
    assert found, f"PDDRegistration/CMakeLists.txt does not set {variable}"
    return [entry.replace("${MODULE_NAME}", "PDDRegistration") for entry in found[1].split()]


def differences(entries: list[str], tracked: list[str]) -> dict[str, list[str]]:
    """What is wrong with a list of files, in words; empty when it is the tracked files in order."""
    found = {
        "tracked by git but not listed": [file for file in tracked if file not in entries],
        "listed but not tracked by git": [file for file in entries if file not in tracked],
        "listed twice": sorted({file for file in entries if entries.count(file) > 1}),
        "out of alphabetical order": [a for a, b in zip(entries, sorted(entries), strict=True) if a != b],
    }
    return {problem: files for problem, files in found.items() if files}


def in_words(wrong: dict[str, list[str]]) -> str:
    """Every problem with all of its files, which pytest would cut short."""
    return "\n".join(f"{problem}: {' '.join(files)}" for problem, files in wrong.items())


def configure(root: Path, build: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """Configure the extension in `root` as Slicer's build does."""
    slicer = Path(__file__).with_name("slicer-build")
    command = [str(CMAKE), "-S", str(root), "-B", str(build), f"-DSlicer_DIR={slicer}", "-Werror=author"]
    return subprocess.run([*command, *NO_COMPILER, *settings], capture_output=True, text=True)


@pytest.fixture(scope="module")
def cmake(root: Path) -> str:
    return (root / "PDDRegistration" / "CMakeLists.txt").read_text("utf-8")


@pytest.fixture(scope="module")
def module_files(tracked_files: list[str]) -> list[str]:
    """Every tracked file of the module, relative to its folder, without the CMake list itself."""
    files = [
        file.removeprefix("PDDRegistration/") for file in tracked_files if file.startswith("PDDRegistration/")
    ]
    return [file for file in files if Path(file).name != "CMakeLists.txt"]


@pytest.fixture(scope="module")
def build(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a configured build, with tests."""
    folder = tmp_path_factory.mktemp("build")
    finished = configure(root, folder, "-DBUILD_TESTING=ON")
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installed Slicer that holds the scripted modules."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [str(CMAKE), "--install", str(build), "--prefix", str(folder)], check=True, capture_output=True
    )
    return folder / "lib" / "qt-scripted-modules"


def calls(build: Path) -> list[list[str]]:
    """The calls of Slicer's macros: name and arguments."""
    return [line.split(";") for line in (build / "calls.txt").read_text("utf-8").splitlines()]


def test_a_list_is_read_up_to_its_bracket() -> None:
    assert listed("set(OTHER x)\nset(A\n  a.py\n  b/c.py\n  )\nset(B d.py)", "A") == ["a.py", "b/c.py"]


def test_a_wrong_list_is_described() -> None:
    assert differences(["a.py", "b.py"], ["a.py", "b.py"]) == {}
    assert differences(["c.py", "a.py", "a.py"], ["a.py", "b.py"]) == {
        "tracked by git but not listed": ["b.py"],
        "listed but not tracked by git": ["c.py"],
        "listed twice": ["a.py"],
        "out of alphabetical order": ["c.py", "a.py"],
    }


def test_the_scripts_are_the_tracked_python_files_in_order(cmake: str, module_files: list[str]) -> None:
    scripts = [file for file in module_files if file.endswith(".py")]
    wrong = differences(listed(cmake, "MODULE_PYTHON_SCRIPTS"), scripts)
    assert not wrong, in_words(wrong)


def test_the_resources_are_all_other_tracked_files_in_order(cmake: str, module_files: list[str]) -> None:
    resources = [file for file in module_files if not file.endswith(".py")]
    wrong = differences(listed(cmake, "MODULE_PYTHON_RESOURCES"), resources)
    assert not wrong, in_words(wrong)


def test_slicer_builds_one_module_with_generic_tests_and_its_own_test(build: Path) -> None:
    (module, *_), (unit_test, *arguments) = calls(build)
    assert (module, unit_test) == ("slicerMacroBuildScriptedModule", "slicer_add_python_unittest")
    assert calls(build)[0][1:3] == ["NAME", "PDDRegistration"]
    assert "WITH_GENERIC_TESTS" in calls(build)[0]
    assert arguments == ["SCRIPT", "PDDRegistration.py"]


def test_a_build_without_tests_registers_none(root: Path, tmp_path: Path) -> None:
    assert configure(root, tmp_path, "-DBUILD_TESTING=OFF").returncode == 0
    assert [name for name, *_ in calls(tmp_path)] == ["slicerMacroBuildScriptedModule"]


def test_slicer_reads_the_description_that_the_top_list_gives(build: Path) -> None:
    lines = (build / "extension.txt").read_text("utf-8").splitlines()
    description = dict(line.split("=", 1) for line in lines)
    assert description["EXTENSION_DEPENDS"] == "NA"
    assert description["EXTENSION_CATEGORY"] == "Registration"
    assert description["EXTENSION_ICONURL"].endswith("/Resources/Icons/PDDRegistration.png")
    assert description["EXTENSION_SCREENSHOTURLS"].endswith(".png")


def test_configuring_fails_when_a_listed_file_does_not_exist(root: Path, cmake: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        root / "PDDRegistration", source / "PDDRegistration", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(root / "CMakeLists.txt", source)
    (source / "PDDRegistration" / listed(cmake, "MODULE_PYTHON_RESOURCES")[0]).unlink()
    finished = configure(source, tmp_path / "build")
    assert finished.returncode != 0
    assert "which does not exist" in " ".join(finished.stderr.split())


def test_an_installed_extension_holds_every_tracked_file(installed: Path, module_files: list[str]) -> None:
    files = sorted(file.relative_to(installed).as_posix() for file in installed.rglob("*") if file.is_file())
    assert files == module_files


FIND = """
from importlib.util import find_spec
for name in ("PDDRegistration", "PDDRegistrationLib", "pddnet"):
    print(find_spec(name).origin)
"""


def test_the_module_finds_its_library_and_the_engine_beside_itself(installed: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    finished = subprocess.run([sys.executable, "-c", FIND], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    packages = [installed / name / "__init__.py" for name in ("PDDRegistrationLib", "pddnet")]
    assert finished.stdout.splitlines() == [
        str(file) for file in (installed / "PDDRegistration.py", *packages)
    ]
