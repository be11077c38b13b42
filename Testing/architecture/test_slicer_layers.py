"""On the Slicer side imports point down too: entry, panel, logic, leaves, then the engine's parts without PyTorch."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from architecture.slicer_sources import ENTRY, LAYERS, LIBRARY, PANEL, Source, rank, sources

STANDARD = {*sys.stdlib_module_names, "slicer", "qt", "ctk", "vtk", "vtkmodules", "numpy", LIBRARY, "pddnet"}
OPTIONAL = {"PyTorchUtils", "SampleData"}  # other modules of the application, looked for when they are needed
THREADS = {"threading", "_thread", "concurrent", "multiprocessing", "asyncio"}
SINGLETONS = {"mrmlScene", "app", "modules"}
OF_THE_PROCESS = {"startupEnvironment"}  # asks the application, but neither the scene nor a window
MADE_OF = {
    *("widget", "event_loop", "sample_data", "logic", "parameters", "mrml_conversion", "display", "quality"),
    *("runner", "dependencies", "settings", "__init__"),
}


@pytest.fixture(scope="module")
def module(root: Path) -> Path:
    return root / "PDDRegistration"


@pytest.fixture(scope="module")
def slicer_side(module: Path) -> list[Source]:
    return sources(module)


@pytest.fixture(scope="module")
def below_the_panel(slicer_side: list[Source]) -> list[Source]:
    return [source for source in slicer_side if source.name not in PANEL]


def source(text: str, name: str = "logic") -> Source:
    return Source(name, ast.parse(text))


def upward(file: Source) -> list[str]:
    """The imports of a file that point up or sideways."""
    own = rank(file.name)
    modules = {i.name.split(".")[1] for i in file.imports if i.package == LIBRARY and "." in i.name}
    modules |= {ENTRY} & {i.package for i in file.imports}
    below = {name for layer in LAYERS[(own if own is not None else len(LAYERS)) + 1 :] for name in layer}
    return sorted(f"{file.name} -> {name}" for name in modules - below)


def asks_the_application(util: str) -> set[str]:
    """The functions of a `slicer.util` text that use a singleton or Qt, directly or by another of its functions."""
    functions = {n.name: n for n in ast.parse(util).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    used = {name: names_in(function) for name, function in functions.items()}
    found = {"qt", "ctk", *SINGLETONS, *(f"slicer.{singleton}" for singleton in SINGLETONS)}
    while more := {name for name in functions if used[name] & found} - found:
        found |= {*more, *(f"slicer.util.{name}" for name in more)}
    return found & set(functions)


def names_in(function: ast.AST) -> set[str]:
    """The names, dotted names and imported names in a function."""
    nodes = list(ast.walk(function))
    imported = {a.name for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
    return imported | {ast.unparse(n) for n in nodes if isinstance(n, ast.Attribute | ast.Name)}


@pytest.fixture(scope="module")
def util() -> str:
    """The text of the real slicer.util, found without importing slicer."""
    package = importlib.util.find_spec("slicer")
    return Path(str(package and package.origin)).with_name("util.py").read_text("utf-8")


def singletons(file: Source, asking: set[str]) -> list[str]:
    """Where a file reaches for a singleton of the application, or for a function of slicer.util that does."""
    names = {
        *(f"slicer.{name}" for name in SINGLETONS),
        *(f"slicer.util.{name}" for name in asking - OF_THE_PROCESS),
    }
    return [f"{file.name}:{line} {name}" for name, line in file.uses("slicer") if name in names]


def qt_names(file: Source) -> list[str]:
    """Where a file knows of Qt: the packages, or Slicer's own widgets."""
    packages = [(i.package, i.line) for i in file.imports if i.package in {"qt", "ctk", "PythonQt"}]
    widgets = [
        (name, line) for name, line in file.uses("slicer") if re.match(r"slicer\.q(MRML|Slicer)", name)
    ]
    return [f"{file.name}:{line} {name}" for name, line in [*packages, *widgets]]


def test_imports_are_found_in_functions_and_under_try_but_not_for_type_checkers() -> None:
    text = (
        "try:\n import a\nexcept E:\n import b\ndef f():\n from .c import d\nif TYPE_CHECKING:\n import e\n"
    )
    assert [(i.name, i.at_file_scope) for i in source(text).imports] == [
        ("a", True),
        ("b", True),
        (f"{LIBRARY}.c.d", False),
    ]


def test_an_import_that_points_up_or_sideways_is_seen() -> None:
    text = (
        "from . import widget, settings\nfrom .checks import a\nimport PDDRegistration\nfrom .logic import b"
    )
    assert upward(source(text)) == ["logic -> PDDRegistration", "logic -> logic", "logic -> widget"]


def test_a_singleton_is_seen_behind_a_function_of_slicer_util(util: str) -> None:
    asking = asks_the_application(util)
    assert {"getNode", "errorDisplay", "addVolumeFromArray", "loadVolume", "mainWindow"} <= asking
    assert {"arrayFromVolume", "updateVolumeFromArray", "pip_install"}.isdisjoint(asking)
    text = "import slicer\nfrom slicer.util import getNode\nslicer.mrmlScene.Clear()\nslicer.util.arrayFromVolume(n)"
    assert singletons(source(text), asking) == ["logic:3 slicer.mrmlScene", "logic:2 slicer.util.getNode"]


def test_qt_is_seen_in_an_import_and_in_slicers_widgets() -> None:
    text = "def f():\n    import qt\nslicer.qMRMLNodeComboBox()\nslicer.qSlicerApplication()\nslicer.vtkMRMLScene()"
    names = [line.split(" ")[1] for line in qt_names(source(text))]
    assert names == ["qt", "slicer.qMRMLNodeComboBox", "slicer.qSlicerApplication"]


def test_the_parts_of_the_module_are_there(module: Path, slicer_side: list[Source]) -> None:
    names = {file.name for file in slicer_side}
    assert {ENTRY, *MADE_OF} - names == set()
    assert (module / "Resources" / "UI" / "PDDRegistration.ui").is_file()


def test_every_file_has_a_layer(slicer_side: list[Source]) -> None:
    without = [file.name for file in slicer_side if rank(file.name) is None and file.name != "__init__"]
    assert without == [], "give these files a layer in Testing/architecture/slicer_sources.py"


def test_every_layered_name_is_a_file(slicer_side: list[Source]) -> None:
    assert set().union(*LAYERS) - {file.name for file in slicer_side} == set()


def test_imports_point_down(slicer_side: list[Source]) -> None:
    assert [arrow for file in slicer_side if file.name != "__init__" for arrow in upward(file)] == []


def test_importing_the_library_imports_nothing_of_it(slicer_side: list[Source]) -> None:
    (init,) = (file for file in slicer_side if file.name == "__init__")
    assert {i.package for i in init.imports if i.at_file_scope} <= set(sys.stdlib_module_names)


def test_the_panel_opens_with_nothing_installed(slicer_side: list[Source]) -> None:
    packages = [(file.name, i) for file in slicer_side for i in file.imports]
    assert [
        f"{name}:{i.line} {i.name}" for name, i in packages if i.at_file_scope and i.package not in STANDARD
    ] == []
    strange = [f"{name}:{i.line} {i.name}" for name, i in packages if i.package not in STANDARD | OPTIONAL]
    assert strange == []


def test_what_only_a_newer_slicer_has_is_not_imported_with_the_file(slicer_side: list[Source]) -> None:
    newer = ("slicer.packaging",)  # 5.12; the extension supports 5.10
    imports = [(file.name, i) for file in slicer_side for i in file.imports if i.at_file_scope]
    assert [f"{name}:{i.line}" for name, i in imports if i.name.startswith(newer)] == []


IMPORT_ALL = """
import json, sys
for statement in json.loads(sys.argv[1]):
    exec(statement)
print(json.dumps(sorted(sys.modules)))
"""


def test_what_is_used_of_the_engine_is_light(module: Path, slicer_side: list[Source]) -> None:
    statements = sorted({i.statement for file in slicer_side for i in file.imports if i.package == "pddnet"})
    assert statements
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps(statements)]
    environment = os.environ | {"PYTHONPATH": str(module)}
    loaded = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=120
    ).stdout
    assert {"torch", "SimpleITK", "matplotlib", "scipy"}.intersection(json.loads(loaded)) == set()


def test_qt_is_known_to_the_panel_alone(below_the_panel: list[Source]) -> None:
    assert [use for file in below_the_panel for use in qt_names(file)] == []


def test_below_the_panel_nobody_reaches_for_the_application(below_the_panel: list[Source], util: str) -> None:
    asking = asks_the_application(util)
    assert [use for file in below_the_panel for use in singletons(file, asking)] == []


def test_no_thread_is_started_that_could_touch_the_scene(slicer_side: list[Source]) -> None:
    packages = [(file.name, i.package) for file in slicer_side for i in file.imports]
    assert [f"{name} imports {package}" for name, package in packages if package in THREADS] == []
    classes = ("QThread", "QThreadPool", "QRunnable")
    found = [(file.name, name) for file in slicer_side for name, _ in file.uses("qt")]
    assert [use for use in found if use[1].split(".")[1] in classes] == []
