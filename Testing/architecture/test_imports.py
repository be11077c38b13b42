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


def test_only_the_interop_package_imports_simpleitk(backend: dict[str, set[str]]) -> None:
    importing = [file for file, names in backend.items() if "SimpleITK" in names]
    assert importing == ["interop/itk_images.py", "interop/simpleitk.py"]


def test_the_backend_depends_on_torch_numpy_and_simpleitk_alone(backend: dict[str, set[str]]) -> None:
    allowed = {"pddnet", "torch", "numpy", "SimpleITK", "matplotlib", *sys.stdlib_module_names}
    others = {file: names - allowed for file, names in backend.items() if names - allowed}
    assert others == {
        # run by another interpreter, which has them
        "baselines/external/peer_packages.py": {"ants", "convexAdam", "itk", "nibabel", "picsl_greedy"},
        "cross_validation/statistics.py": {"scipy"},  # where it is installed
    }


def test_the_contributor_guide_shows_the_layers_that_are_enforced(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert "```text\n" + "\n".join(layers) + "\n```" in (root / "CONTRIBUTING.md").read_text("utf-8")


ASK_FOR_HELP = """
import contextlib, io, json, sys, time
from pddnet.cli import main
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    main(["--help"])
print(json.dumps([text.getvalue(), time.process_time(), list(sys.modules)]))
"""
HEAVY = {"torch", "numpy", "SimpleITK", "matplotlib", "scipy", *SLICER}


def test_help_is_quick_because_nothing_heavy_is_loaded(root: Path) -> None:
    text, cpu_seconds, modules = json.loads(in_new_process(root, ASK_FOR_HELP))
    assert "register" in text
    assert HEAVY.isdisjoint(modules)
    assert cpu_seconds < 1.0


def test_the_public_face_loads_neither_simpleitk_nor_matplotlib(root: Path) -> None:
    use = "import json, sys, pddnet; [getattr(pddnet, n) for n in pddnet.__all__]; print(json.dumps(list(sys.modules)))"
    assert HEAVY.intersection(json.loads(in_new_process(root, use))) == {"torch", "numpy"}


def test_the_installed_version_is_the_packages_own(root: Path) -> None:
    version = in_new_process(root, "import pddnet; print(pddnet.__version__)").strip()
    assert version == importlib.metadata.version("pddnet")
