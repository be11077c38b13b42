"""The Slicer side of the project as text: its files, what each imports and where, and its layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ENTRY, LIBRARY = "PDDRegistration", "PDDRegistrationLib"
# A module imports from the lines below its own, never from its own line or from above. __init__.py is in no layer.
PANEL_LAYERS = (
    {ENTRY},
    {"self_test"},
    {"widget"},
    {"advanced_panel", "input_panel", "parameter_panel", "quality_panel", "run_panel", "view_controls"},
    {"controls", "event_loop", "input_watch", "sample_data"},
)
LAYERS = (
    *PANEL_LAYERS,
    {"logic"},
    {"checks", "registration_run"},
    {"node_checks"},
    {"output_nodes"},
    {"dependencies", "display", "mrml_conversion", "parameters", "quality", "runner", "task"},
    {"legend", "mrml_masks", "next_worker", "other_python", "overlay_set", "view_set"},
    {"comparison", "mrml_segmentations", "overlays", "requirements"},
    {"colours", "composed_volume", "cursor", "displayed_nodes", "scene_watch"},
    {"auxiliary", "device_guess", "mrml_transforms", "mrml_volumes", "view_state", "warm_worker"},
    {"array_steps", "child_process", "installed_versions", "layouts", "mrml_geometry", "python_environment"},
    {"diagnosis", "doubts", "parameter_fields", "quality_columns", "settings"},
)
PANEL = set().union(*PANEL_LAYERS)  # Qt and the application's singletons are known here, and nowhere below


@dataclass(frozen=True)
class Import:
    """One imported name, absolute and dotted: `from .settings import A` is PDDRegistrationLib.settings.A."""

    name: str
    line: int
    statement: str
    at_file_scope: bool

    @property
    def package(self) -> str:
        """The top-level package."""
        return self.name.split(".")[0]


@dataclass(frozen=True)
class Source:
    """One Python file of the Slicer side."""

    name: str  # of the module, without the package
    tree: ast.Module

    @property
    def imports(self) -> list[Import]:
        """Everything it imports when it runs, wherever the statement stands; not what only a type checker reads."""
        return list(_imports(self.tree.body, at_file_scope=True))

    def uses(self, *roots: str) -> list[tuple[str, int]]:
        """The dotted names that begin with one of `roots`, in full, with their lines; also those imported by `from`."""
        dotted = [
            (_dotted(node), node.lineno) for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)
        ]
        found = [*dotted, *((imported.name, imported.line) for imported in self.imports)]
        return [(name, line) for name, line in found if name.startswith(tuple(f"{root}." for root in roots))]


def sources(module: Path) -> list[Source]:
    """The Python files of the module's folder, the engine apart."""
    files = [*module.glob("*.py"), *(module / LIBRARY).rglob("*.py")]
    return [Source(file.stem, ast.parse(file.read_text("utf-8"), str(file))) for file in sorted(files)]


def rank(name: str) -> int | None:
    """The layer of a module, counted from the top; None where it has none."""
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


def _imports(statements: list[ast.stmt], at_file_scope: bool) -> Iterator[Import]:
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            text = ast.unparse(statement)
            yield from (Import(name, statement.lineno, text, at_file_scope) for name in _names(statement))
        elif isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from _imports(statement.orelse, at_file_scope)
        else:
            inside = at_file_scope and not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
            for _, value in ast.iter_fields(statement):
                blocks = value if isinstance(value, list) else []
                yield from _imports([block for block in blocks if isinstance(block, ast.stmt)], inside)
                for block in blocks:  # the handlers of try and the cases of match
                    if isinstance(block, ast.ExceptHandler | ast.match_case):
                        yield from _imports(block.body, inside)


def _names(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    package = ".".join(part for part in (LIBRARY if statement.level else "", statement.module or "") if part)
    return [f"{package}.{alias.name}" for alias in statement.names]


def _dotted(node: ast.expr) -> str:
    """The text of a dotted name; empty for an attribute of something else, as of a call's result."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""
