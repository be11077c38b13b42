"""Properties of stand-ins that are a value and what follows from changing it."""

from __future__ import annotations

import copy
import itertools

from PySide6.QtCore import Property

_number = itertools.count()


def stored(typeName, default, changed: str = "") -> Property:
    """A property that keeps its value; `changed` names the method to call after it has changed."""
    key = f"_stored{next(_number)}"

    def read(widget):
        return getattr(widget, key, copy.copy(default))

    def write(widget, value):
        if value != read(widget):
            setattr(widget, key, value)
            if changed:
                getattr(widget, changed)()

    return Property(typeName, read, write)


def forwarded(typeName, part: str, getter: str) -> Property:
    """A property that is the property of a part of the widget."""
    setter = "set" + getter[0].upper() + getter[1:]

    def read(widget):
        return getattr(getattr(widget, part), getter)()

    def write(widget, value):
        getattr(getattr(widget, part), setter)(value)

    return Property(typeName, read, write)
