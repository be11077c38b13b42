"""The set-up commands choose a fit Python, pin what they install, and pip carries the whole backend."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """Package -> exact version, from requirements-dev.txt; the version is empty where a line has no pin."""
    lines = (root / "requirements-dev.txt").read_text("utf-8").splitlines()
    requirements = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {name: version for name, _, version in requirements}


def test_without_a_fit_python_make_says_what_to_do(root: Path, tmp_path: Path) -> None:
    command = ["make", "-C", str(root), "demo", f"VENV={tmp_path / 'venv'}", "PYTHON=no-such-python"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode != 0
    assert "No Python 3.11 or newer among: no-such-python" in finished.stderr
    assert not (tmp_path / "venv").exists()


def test_every_development_requirement_is_pinned_and_installed_at_its_pin(pins: dict[str, str]) -> None:
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in pins}
    assert installed == pins


def test_everything_the_project_asks_for_is_pinned(project: dict[str, Any], pins: dict[str, str]) -> None:
    asked = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {re.split(r"[<>=~! ]", requirement)[0] for requirement in asked}
    assert names | {"setuptools"} == set(pins)


def test_the_set_up_names_no_package_index(root: Path) -> None:
    for file in ("Makefile", "requirements-dev.txt", "pyproject.toml", ".ci/run"):
        assert not re.search(r"index-url|find-links|pypi\.|pytorch\.org", (root / file).read_text("utf-8")), (
            file
        )


def test_a_wheel_holds_every_file_of_the_backend(root: Path, tmp_path: Path) -> None:
    backend = root / "PDDRegistration" / "pddnet"
    source = tmp_path / "source"
    shutil.copytree(
        backend, source / "PDDRegistration" / "pddnet", ignore=shutil.ignore_patterns("__pycache__")
    )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / file, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*build, str(source)], check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("pddnet-*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("pddnet/")}
    files = {p.relative_to(backend.parent).as_posix() for p in backend.rglob("*") if p.is_file()}
    assert held == {file for file in files if "__pycache__" not in file}
