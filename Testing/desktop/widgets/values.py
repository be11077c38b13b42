"""Properties: read as plain values, written only with what PythonQt converts to their C++ type."""

from __future__ import annotations

_NUMBERS = {"bool": (bool, int, float), "int": (int, float), "double": (int, float)}
_CASTS = {"bool": bool, "int": int, "double": float, "QStringList": list}


def dynamicNames(real) -> set[str]:
    """Names of the properties made at run time."""
    return {bytes(name).decode() for name in real.dynamicPropertyNames()}


def metaProperty(real, api, name: str):
    """Qt's description of a property; AttributeError where the application has one that the stand-in lacks."""
    meta = real.metaObject()
    index = meta.indexOfProperty(name)
    if index < 0:
        raise AttributeError(
            f"the stand-in of {api.name} lacks the property {name!r}, which the application has"
        )
    return meta.property(index)


def read(real, api, name: str):
    """A property's value; enumerations come from the getter, since PySide6 cannot convert all of them."""
    description = metaProperty(real, api, name)
    if description.isEnumType() or _ofPython(description):
        return _current(real, name)
    return real.property(name)


def _ofPython(description) -> bool:
    """Whether a stand-in's property holds what Qt cannot convert: an enumeration or any object of Python."""
    return "::" in description.typeName() and not description.isEnumType()


def _current(real, name: str):
    getter = getattr(real, name)
    return getter() if callable(getter) else getter


def write(real, api, name: str, value) -> None:
    """Set a property, or raise AttributeError as PythonQt does."""
    typeName = api.properties[name]
    description = metaProperty(real, api, name)
    if not description.isWritable():
        raise AttributeError(f"Property {name!r} of {api.name} object is not writable")
    if not _accepts(typeName, value) or not _set(real, description, name, typeName, value):
        raise AttributeError(
            f"Property {name!r} of type {typeName!r} does not accept an object of type "
            f"{type(value).__name__} ({value!r})"
        )


def _accepts(typeName: str, value) -> bool:
    """PythonQt also writes any object's str() into a text; that is refused here, since nobody means it."""
    if typeName in _NUMBERS:
        return isinstance(value, _NUMBERS[typeName])
    if typeName == "QString":
        return isinstance(value, str)
    if typeName == "QStringList":
        return isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)
    return value is not None or typeName == "QVariant"


def _set(real, description, name: str, typeName: str, value) -> bool:
    if _ofPython(description):
        setattr(real, name, value)
        return True
    if not description.isEnumType():
        return real.setProperty(name, _CASTS.get(typeName, lambda given: given)(value))
    kind = type(_current(real, name))
    setter = getattr(real, "set" + name[0].upper() + name[1:])
    setter(value if isinstance(value, kind) else kind(value))
    return True
