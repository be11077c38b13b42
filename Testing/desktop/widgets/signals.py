"""Signals by their recorded signatures; a signature that the application lacks is written down as a complaint."""

from __future__ import annotations

import inspect
import sys
import weakref

import shiboken6
from PySide6.QtCore import SIGNAL, QMetaObject, QObject

complaints: list[str] = []  # what the application would only print; a test fails on any
_connections: dict[int, list[tuple]] = {}  # by address of the sender: (signature, target, connection)

# Signals of Qt 5 that Qt 6 lacks: which signal tells the same, and how its arguments become the old ones.
_REPLACED = {
    "currentIndexChanged(QString)": (
        "currentIndexChanged(int)",
        lambda sender, index: sender.itemText(index),
    ),
    "activated(QString)": ("textActivated(QString)", lambda _sender, text: text),
    "highlighted(QString)": ("textHighlighted(QString)", lambda _sender, text: text),
    "valueChanged(QString)": ("textChanged(QString)", lambda _sender, text: text),
    "buttonClicked(int)": ("idClicked(int)", lambda _sender, number: number),
    "buttonPressed(int)": ("idPressed(int)", lambda _sender, number: number),
    "buttonReleased(int)": ("idReleased(int)", lambda _sender, number: number),
    "buttonToggled(int,bool)": ("idToggled(int,bool)", lambda _sender, *arguments: arguments),
}


class BoundSignal:
    """`widget.clicked`: connect, disconnect, emit."""

    def __init__(self, owner, name: str):
        self._owner, self._name = owner, name
        self._signature = type(owner)._api.signatures(name)[0]

    def connect(self, target):
        return connect(self._owner, self._signature, (target,))

    def disconnect(self, *target):
        return disconnect(self._owner, self._signature, target)

    def emit(self, *arguments):
        from .proxy import alive, unwrap

        getattr(alive(self._owner), self._name).emit(*(unwrap(argument) for argument in arguments))

    __call__ = emit


def complain(text: str) -> bool:
    """Print as the application does, remember for the test, and give the False that connect() returns."""
    print(text, file=sys.stderr)
    complaints.append(text)
    return False


def connect(sender, signature: str, target: tuple) -> bool:
    """`connect(signature, callable)` or `connect(signature, receiver, "slot(type)")`."""
    from .proxy import alive

    kind = type(sender)
    signature = normalised(signature)
    if signature not in kind._api.signals:
        return complain(f"QObject::connect: No such signal {kind.__name__}::{signature}")
    function = _function(signature, target)
    if function is None:
        return complain(f"QObject::connect: {kind.__name__}::{signature} cannot be connected to {target}")
    real = alive(sender)
    spelling, translate = _spelling(real, signature)
    connection = QObject.connect(real, SIGNAL(spelling), _slot(weakref.ref(real), function, translate))
    _remember(real).append((signature, function, connection))
    return True


def disconnect(sender, signature: str, target: tuple = ()) -> bool:
    """Ends a connection of a signal to a target, or all of them; False where there was none."""
    from .proxy import alive

    kind = type(sender)
    signature = normalised(signature)
    if signature not in kind._api.signals:
        return complain(f"QObject::disconnect: No such signal {kind.__name__}::{signature}")
    function = _function(signature, target) if target else None
    entries = _remember(alive(sender))
    ended = [
        entry for entry in entries if entry[0] == signature and (function is None or entry[1] == function)
    ]
    if function is not None:
        del ended[1:]  # one at a time, as PythonQt does
    for entry in ended:
        QObject.disconnect(entry[2])
        entries.remove(entry)
    return bool(ended)


def normalised(signature: str) -> str:
    return bytes(QMetaObject.normalizedSignature(signature)).decode()


def _remember(real) -> list:
    address = shiboken6.getCppPointer(real)[0]
    if address not in _connections:
        _connections[address] = []
        real.destroyed.connect(lambda *_: _connections.pop(address, None))
    return _connections[address]


def _function(signature: str, target: tuple):
    """The Python callable to call, None where the target is nothing that PythonQt connects to."""
    if len(target) == 1:
        return target[0] if callable(target[0]) else None
    receiver, slot = target
    name = normalised(slot).split("(")[0]
    api = type(receiver)._api
    given, taken = (s.partition("(")[2].rstrip(")").split(",") for s in (signature, normalised(slot)))
    if (
        name not in api.attributes
        or name in api.properties
        or (taken != [""] and taken != given[: len(taken)])
    ):
        return None
    method = getattr(receiver, name)
    return method if taken != [""] else _WithoutArguments(method)


class _WithoutArguments:
    """Calls a slot that takes nothing from a signal that gives something."""

    def __init__(self, method):
        self._method = method

    def __call__(self, *_arguments):
        self._method()

    def __eq__(self, other):
        return isinstance(other, _WithoutArguments) and self._method == other._method

    __hash__ = None


def _spelling(real, signature: str):
    """The signal in PySide6: nodes, scenes and the like travel as Python objects there."""
    name, _, rest = signature.partition("(")
    types = rest.rstrip(")").split(",")
    spelling = f"{name}({','.join('PyObject' if t.startswith('vtk') else t for t in types)})"
    meta = real.metaObject()
    if meta.indexOfSignal(spelling) >= 0:
        return spelling, None
    replacement, translate = _REPLACED.get(signature, ("", None))
    if meta.indexOfSignal(replacement) < 0:
        raise AttributeError(f"the stand-in of {meta.className()} lacks the signal {signature}")
    return replacement, translate


def _slot(sender: weakref.ref, function, translate):
    """Gives a Python function as many arguments as it takes, the way PythonQt does; does not keep the sender."""
    from .proxy import wrap

    accepted = _positional(function)

    def slot(*arguments):
        if translate is not None:
            result = translate(sender(), *arguments)
            arguments = result if isinstance(result, tuple) else (result,)
        function(*wrap(arguments)[:accepted])

    return slot


def _positional(function) -> int | None:
    """How many arguments a function or method of Python takes; None, which is all, for anything else."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - inspect.ismethod(function)
