"""Imports point down, Slicer stays out of the backend, and importing costs nothing that is not needed."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SLICER = {"slicer", "vtk", "vtkmodules", "qt", "ctk"}


def imported_packages(source: str) -> set[str]:
    """The top-level packages that a source text imports, at file scope or anywhere inside it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.fixture(scope="module")
def backend(root: Path) -> dict[str, set[str]]:
    """Path of each backend file, relative to the package -> the packages it imports."""
    package = root / "PDDRegistration" / "pddnet"
    files = sorted(package.rglob("*.py"))
    return {f.relative_to(package).as_posix(): imported_packages(f.read_text("utf-8")) for f in files}


def in_new_process(root: Path, code: str) -> str:
    """What `code` prints in an interpreter that has imported nothing yet."""
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_an_import_is_found_wherever_it_hides() -> None:
    source = "def f():\n    import vtk.util\n    from slicer.util import arrayFromVolume\nfrom . import qt\n"
    assert imported_packages(source) == {"vtk", "slicer"}


def test_the_backend_does_not_import_slicer(backend: dict[str, set[str]]) -> None:
    assert {file: names & SLICER for file, names in backend.items() if names & SLICER} == {}


def test_only_the_interop_module_imports_simpleitk(backend: dict[str, set[str]]) -> None:
    assert [file for file, names in backend.items() if "SimpleITK" in names] == ["interop/simpleitk.py"]


def test_the_backend_depends_on_torch_numpy_and_simpleitk_alone(backend: dict[str, set[str]]) -> None:
    allowed = {"pddnet", "torch", "numpy", "SimpleITK", "matplotlib", *sys.stdlib_module_names}
    assert {file: names - allowed for file, names in backend.items() if names - allowed} == {}


def test_the_contributor_guide_shows_the_layers_that_are_enforced(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert "```text\n" + "\n".join(layers) + "\n```" in (root / "CONTRIBUTING.md").read_text("utf-8")


def test_importing_pddnet_loads_neither_simpleitk_nor_matplotlib(root: Path) -> None:
    modules = set(
        json.loads(in_new_process(root, "import json, sys, pddnet; print(json.dumps(list(sys.modules)))"))
    )
    assert "torch" in modules
    assert modules.isdisjoint({"SimpleITK", "matplotlib", "scipy", *SLICER})


def test_help_costs_under_a_second_more_than_starting_torch(root: Path) -> None:
    def cpu_seconds(code: str) -> float:
        timed = f"{code}\nimport time; print(time.process_time())"
        return min(float(in_new_process(root, timed).split()[-1]) for _ in range(2))

    ask = (
        "try:\n  from pddnet.cli import main; main(['--help'])\nexcept SystemExit as e:\n  assert not e.code"
    )
    assert cpu_seconds(ask) < cpu_seconds("import torch") + 1.0


def test_the_installed_version_is_the_packages_own(root: Path) -> None:
    version = in_new_process(root, "import pddnet; print(pddnet.__version__)").strip()
    assert version == importlib.metadata.version("pddnet")
