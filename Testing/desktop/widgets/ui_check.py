"""Checks a .ui file against the application's recorded classes: Qt's own loader skips what it does not know."""

from __future__ import annotations

from xml.etree import ElementTree

from .api import Api, apiOf, recordedApi

# What Designer writes that is no property of the class: the form builder sets it.
_LAYOUT = {
    "leftMargin",
    "topMargin",
    "rightMargin",
    "bottomMargin",
    "horizontalSpacing",
    "verticalSpacing",
    "margin",
}
_BUILDER = {"buddy"}
_ELEMENTS = {  # C++ types and the elements that hold their values
    "QString": {"string"},
    "QStringList": {"stringlist"},
    "bool": {"bool"},
    "int": {"number"},
    "double": {"double", "number"},
}


def problems(root: ElementTree.Element) -> list[str]:
    """Everything in the file that the application would skip or refuse, one sentence each."""
    found = _nameProblems(root)
    for element in root.iter():
        if element.tag in ("widget", "layout", "action"):
            found += _propertyProblems(element)
    return found


def apiOfElement(element: ElementTree.Element) -> Api | None:
    """The names of the class of a <widget>, <layout> or <action>; None for an unknown class."""
    name = {"action": "QAction"}.get(element.tag) or element.get("class", "")
    if name == "Line":  # Designer's word for a QFrame that is a line
        return _ofQt("QFrame", {"orientation"})
    return recordedApi(name) or _ofQt(name, set())


def _ofQt(name: str, more: set[str]) -> Api | None:
    from PySide6 import QtWidgets

    real = getattr(QtWidgets, name, None)
    if real is None:
        return None
    api = apiOf(real)
    return Api(name, api.attributes, api.properties | dict.fromkeys(more, ""), api.signals, False)


def _nameProblems(root: ElementTree.Element) -> list[str]:
    names = [e.get("name") for e in root.iter() if e.tag in ("widget", "layout", "action", "spacer")]
    return [
        f"the name {name!r} is given {names.count(name)} times"
        for name in sorted({*names})
        if names.count(name) > 1
    ]


def _propertyProblems(element: ElementTree.Element) -> list[str]:
    api = apiOfElement(element)
    if api is None:
        return [f"{element.get('name')}: the class {element.get('class')} is not known"]
    found = []
    for item in element.findall("property"):
        name = item.get("name")
        if item.get("stdset") == "0" or name in _BUILDER or (element.tag == "layout" and name in _LAYOUT):
            continue
        if name not in api.properties:
            found.append(f"{element.get('name')}: {api.name} has no property {name!r}")
            continue
        kind, value = api.properties[name], item[0].tag
        if value not in _ELEMENTS.get(kind, {value}):
            found.append(f"{element.get('name')}: {name!r} is of type {kind}, the file holds a <{value}>")
    return found
