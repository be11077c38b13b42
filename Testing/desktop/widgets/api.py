"""Which names the application's classes offer to Python: recorded there, or else Qt's own."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from PySide6.QtCore import QMetaMethod

from .record import REDUCED, complete


@dataclass(frozen=True)
class Api:
    """One class: every attribute name, its properties with their C++ types, its signals' signatures."""

    name: str
    attributes: frozenset[str]
    properties: dict[str, str]
    signals: tuple[str, ...]
    recorded: bool

    def signatures(self, signal: str) -> list[str]:
        """A signal's overloads, the one that `object.signal.connect` takes first.

        PythonQt takes the one declared first, which has the most arguments and speaks of values, not of texts or
        states.
        """
        overloads = [signature for signature in self.signals if signature.split("(")[0] == signal]
        return sorted(overloads, key=lambda s: (s.endswith("()"), s.endswith(("(QString)", "(bool)"))))


@functools.cache
def _recording() -> dict:
    return json.loads(REDUCED.read_text())


def recordedClasses() -> list[str]:
    """Names of the classes in the recording."""
    return [name for name in _recording() if name != "QObject"]


@functools.cache
def recordedApi(name: str) -> Api | None:
    """What the application offers for a class, None where it was not recorded."""
    if name not in _recording():
        return None
    api = complete(_recording(), name)
    return Api(name, frozenset(api["attributes"]), api["properties"], tuple(api["signals"]), True)


@functools.cache
def apiOf(real: type) -> Api:
    """The recorded names of a class; for a class of Qt that was not recorded those of the Qt at hand."""
    recorded = recordedApi(real.__name__)
    if recorded is not None:
        return recorded
    meta = real.staticMetaObject
    members = [meta.property(i) for i in range(meta.propertyCount())]
    methods = [meta.method(i) for i in range(meta.methodCount())]
    signals = [bytes(m.methodSignature()).decode() for m in methods if m.methodType() == QMetaMethod.Signal]
    attributes = frozenset(name for name in dir(real) if not name.startswith("_"))
    properties = {p.name(): p.typeName() for p in members}
    return Api(
        real.__name__,
        attributes | set(properties) | {"className", "delete"},
        properties,
        tuple(signals),
        False,
    )
