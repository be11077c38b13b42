"""Every text that the panel shows can be translated: it is a plain literal inside `_()`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from architecture.slicer_sources import PANEL, Source, sources

TRANSLATE = {"_", "tr", "translate"}
# What shows a text: a method's arguments, and a property set as an attribute as PythonQt allows.
METHODS = {
    "addAction", "addItem", "addItems", "insertItem", "setItemText", "setLabel", "setLabelText", "setPlaceholderText",
    "setStatusTip", "setTabText", "setText", "setTitle", "setToolTip", "setWhatsThis", "setWindowTitle",
    "setHorizontalHeaderLabels", "confirmOkCancelDisplay", "confirmYesNoDisplay", "errorDisplay", "infoDisplay",
    "warningDisplay", "messageBox", "delayDisplay", "showStatusMessage", "createProgressDialog", "tryWithErrorDisplay",
    "RegistrationError", "QLabel", "QPushButton", "QAction", "QCheckBox",
}  # fmt: skip
PROPERTIES = {
    "acknowledgementText", "helpText", "labelText", "placeholderText", "prefix", "suffix", "specialValueText",
    "statusTip", "text", "title", "toolTip", "whatsThis", "windowTitle", "detailedText", "informativeText",
}  # fmt: skip
CODES = {"RegistrationError": 1}  # arguments at the front that are no texts: the error's code


@pytest.fixture(scope="module")
def slicer_side(root: Path) -> list[Source]:
    return [file for file in sources(root / "PDDRegistration") if can_translate(file)]


def called(node: ast.AST) -> str:
    """The last name of what a call calls; empty for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def literals(value: ast.AST) -> Iterator[ast.Constant]:
    """The texts with letters in an expression that no translation surrounds; keys and conditions are no texts."""
    if called(value) in TRANSLATE:
        return
    if (
        isinstance(value, ast.Constant)
        and isinstance(value.value, str)
        and re.search("[A-Za-z]{2}", value.value)
    ):
        yield value
    hidden = (
        [value.slice]
        if isinstance(value, ast.Subscript)
        else [value.test]
        if isinstance(value, ast.IfExp)
        else []
    )
    if isinstance(value, ast.FormattedValue | ast.Compare | ast.Lambda):
        hidden = [
            child for child in ast.iter_child_nodes(value) if child is not getattr(value, "value", None)
        ]
    for child in ast.iter_child_nodes(value):
        if child not in hidden:
            yield from literals(child)


def shown(tree: ast.AST) -> Iterator[ast.AST]:
    """The expressions whose value a user reads."""
    for node in ast.walk(tree):
        if called(node) in METHODS:
            assert isinstance(node, ast.Call)
            yield from node.args[CODES.get(called(node), 0) :]
            yield from (keyword.value for keyword in node.keywords if keyword.arg in PROPERTIES)
        if isinstance(node, ast.Assign) and any(getattr(t, "attr", "") in PROPERTIES for t in node.targets):
            yield node.value


def untranslated(file: Source) -> list[str]:
    found = {(text.lineno, text.value) for value in shown(file.tree) for text in literals(value)}
    return [f"{file.name}:{line} {text!r}" for line, text in sorted(found)]


def untranslatable(file: Source) -> list[str]:
    """Calls of `_` with a text that is put together first: what collects the texts to translate cannot read it."""
    calls = [n for n in ast.walk(file.tree) if called(n) == "_"]
    return [f"{file.name}:{call.lineno}" for call in calls if not is_plain(call)]


def is_plain(call: ast.AST) -> bool:
    """Whether the only argument is a literal, or a whole text of the engine: an attribute, as preset.description."""
    match call:
        case ast.Call(args=[ast.Constant(value=str()) | ast.Attribute()], keywords=[]):
            return True
    return False


def can_translate(file: Source) -> bool:
    """Whether a file is of the panel or knows Slicer; what runs without Slicer passes its texts on as they are."""
    return file.name in PANEL or any(i.package == "slicer" and i.at_file_scope for i in file.imports)


def test_a_bare_text_is_seen() -> None:
    text = """
button.setText("Register")
button.setText(_("Register"))
self.ui.label.toolTip = "why" if mode == "other" else _("because")
slicer.util.errorDisplay(f"{name} failed", windowTitle="Oops")
raise RegistrationError("input", "No such file")
label.text = _("{mb} MB").format(mb=values["memory"])
"""
    assert [line.split(" ", 1)[1] for line in untranslated(Source("f", ast.parse(text)))] == [
        "'Register'",
        "'why'",
        "' failed'",
        "'Oops'",
        "'No such file'",
    ]


def test_a_text_put_together_before_it_is_translated_is_seen() -> None:
    text = '_("plain")\n_("joined " "by Python")\n_(f"{x} mm")\n_("a" + b)\n_(name)\n'
    assert untranslatable(Source("f", ast.parse(text))) == ["f:3", "f:4", "f:5"]


def test_every_shown_text_is_translated(slicer_side: list[Source]) -> None:
    assert [text for file in slicer_side for text in untranslated(file)] == []


def test_every_translated_text_is_a_plain_literal(slicer_side: list[Source]) -> None:
    assert [place for file in slicer_side for place in untranslatable(file)] == []
