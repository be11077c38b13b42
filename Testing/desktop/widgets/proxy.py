"""An object of PySide6 that answers to Python as PythonQt does in the application.

Properties are attributes, methods are methods, signals are connected by their signatures, and a name that the
application does not offer is an error to read and to write.
"""

from __future__ import annotations

import functools
import weakref

import shiboken6
from PySide6.QtCore import QObject

from . import modal, signals, values
from .api import apiOf, recordedClasses
from .qapplication import application

_proxies: weakref.WeakValueDictionary[int, Proxy] = weakref.WeakValueDictionary()
_extraNames = {
    "exec_": "exec",
    "raise_": "raise",
}  # PythonQt adds an underscore to words of the Python language


class Method:
    """A method of an object or a static function of a class: takes and gives proxies, no keywords, no callables."""

    __slots__ = ("_call", "_name", "_owner")

    def __init__(self, owner, name: str, call):
        self._owner, self._name, self._call = owner, name, call

    def __call__(self, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{self._name}() takes no keyword arguments")
        modal.refuse(self._owner, self._name)
        if self._name != "singleShot" and any(isPythonCallable(argument) for argument in arguments):
            raise TypeError(f"{self._name}() called with a Python callable, which C++ does not take")
        return wrap(self._call(*(unwrap(argument) for argument in arguments)))

    def __eq__(self, other):
        return isinstance(other, Method) and (self._owner, self._name) == (other._owner, other._name)

    def __hash__(self):
        return hash((self._owner, self._name))


def isPythonCallable(argument) -> bool:
    return callable(argument) and not isinstance(argument, type)


class ProxyClass(type):
    """A class of the application: makes proxies, and holds static functions and enumerations."""

    def __call__(cls, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{cls.__name__}() takes no keyword arguments")
        application()
        return wrap(cls._class(*(unwrap(argument) for argument in arguments)))

    def __getattr__(cls, name):
        spelt = offered(cls, name)
        found = getattr(cls._class, spelt, None)
        if found is None:
            raise AttributeError(f"the stand-in of {cls.__name__} lacks {name!r}, which the application has")
        return Method(cls, name, found) if isPythonCallable(found) else found


def offered(cls, name: str) -> str:
    """The name to look up in PySide6; raises for one that the application's class does not offer."""
    spelt = _extraNames.get(name, name)
    # an unrecorded class of Qt has enumerations' values that its dir() leaves out
    known = spelt in cls._api.attributes or (not cls._api.recorded and hasattr(cls._class, spelt))
    if name.startswith("_") or not known:
        raise AttributeError(f"{cls.__name__} has no attribute named {name!r}")
    return {"raise": "raise_"}.get(spelt, spelt)


class Proxy(metaclass=ProxyClass):
    """One object; kept as long as somebody in Python knows it, so that it is the same object every time."""

    __slots__ = ("__weakref__", "_real")
    _class = QObject
    _api = apiOf(QObject)

    def __getattr__(self, name):
        cls = type(self)
        real = alive(self)
        if name in cls._api.properties or name == "name":
            return wrap(values.read(real, cls._api, "objectName" if name == "name" else name))
        if cls._api.signatures(name):
            return signals.BoundSignal(self, name)
        try:
            spelt = offered(cls, name)
        except AttributeError:
            return _dynamic(self, name)
        found = getattr(real, spelt, None)
        if found is None:
            raise AttributeError(f"the stand-in of {cls.__name__} lacks {name!r}, which the application has")
        return Method(self, name, found) if isPythonCallable(found) else found

    def __setattr__(self, name, value):
        cls = type(self)
        real = alive(self)
        if name in cls._api.properties or name == "name":
            values.write(real, cls._api, "objectName" if name == "name" else name, unwrap(value))
        elif name in values.dynamicNames(real):
            real.setProperty(name, unwrap(value))
        elif name in cls._api.attributes:
            raise AttributeError(f"{name!r} can not be overwritten on {cls.__name__} object")
        else:
            raise AttributeError(
                f"{name!r} does not exist on {cls.__name__} and creating new attributes on C++ objects is not allowed"
            )

    def __bool__(self):
        return shiboken6.isValid(object.__getattribute__(self, "_real"))

    def __repr__(self):
        return f"{type(self).__name__} (stand-in, {object.__getattribute__(self, '_real')!r})"

    def className(self) -> str:
        return type(self).__name__

    def delete(self):
        shiboken6.delete(alive(self))

    def property(self, name):
        api = type(self)._api
        real = alive(self)
        return wrap(values.read(real, api, name) if name in api.properties else real.property(name))

    def setProperty(self, name, value):
        """Sets a property, or makes a dynamic one as in C++, where a misspelt name is not an error."""
        api = type(self)._api
        if name not in api.properties:
            return alive(self).setProperty(name, unwrap(value))
        values.write(alive(self), api, name, unwrap(value))
        return True

    def findChild(self, kind, name=""):
        return wrap(alive(self).findChild(QObject if isinstance(kind, str) else unwrap(kind), name or None))

    def findChildren(self, kind, name=""):
        return wrap(
            alive(self).findChildren(QObject if isinstance(kind, str) else unwrap(kind), name or None)
        )

    def connect(self, signature, *target):
        return signals.connect(self, signature, target)

    def disconnect(self, signature, *target):
        return signals.disconnect(self, signature, target)


def alive(proxy: Proxy):
    """The object behind a proxy; PythonQt raises ValueError where C++ has destroyed it."""
    real = object.__getattribute__(proxy, "_real")
    if not shiboken6.isValid(real):
        raise ValueError(f"Trying to use a destroyed {type(proxy).__name__} object")
    return real


def _dynamic(proxy: Proxy, name: str):
    """Last resorts of PythonQt: a dynamic property, then a child of that name."""
    real = alive(proxy)
    if name in values.dynamicNames(real):
        return wrap(real.property(name))
    for child in real.children():
        if not name.startswith("__") and child.objectName() == name:
            return wrap(child)
    raise AttributeError(f"{type(proxy).__name__} has no attribute named {name!r}")


@functools.cache
def proxyClass(real: type) -> ProxyClass:
    """The application's face of a class of PySide6 or of a stand-in derived from one."""
    if real is QObject:
        return Proxy
    base = next(base for base in real.__mro__[1:] if issubclass(base, QObject))
    namespace = {"__slots__": (), "_class": real, "_api": apiOf(real)}
    return ProxyClass(real.__name__, (proxyClass(base),), namespace)


def wrap(value):
    """What C++ returns as Python sees it: objects as proxies, lists as tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(wrap(entry) for entry in value)
    if not isinstance(value, QObject):
        return value
    pointer = shiboken6.getCppPointer(value)[0]
    known = _proxies.get(pointer)
    if known is not None and object.__getattribute__(known, "_real") is value:
        return known
    proxy = object.__new__(proxyClass(_nearest(type(value))))
    object.__setattr__(proxy, "_real", value)
    _proxies[pointer] = proxy
    return proxy


@functools.cache
def _nearest(real: type) -> type:
    """The class that PythonQt knows: a helper class of a stand-in shows as the class of Qt it is made from."""
    known = set(recordedClasses())
    return next(
        cls
        for cls in real.__mro__
        if cls.__name__ in known
        or cls.__module__.startswith("PySide6")
        or vars(cls).get("knownToPython", False)
        or cls is QObject
    )


def unwrap(value):
    """The object of PySide6 in a proxy, also within lists."""
    if isinstance(value, Proxy):
        return alive(value)
    if isinstance(value, ProxyClass):
        return value._class
    if isinstance(value, (list, tuple)):
        return [unwrap(entry) for entry in value]
    return value
