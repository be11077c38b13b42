"""Dataclasses to JSON and back: strict JSON out, and on the way in every value checked against its field's type."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pddnet.errors import InputError

T = TypeVar("T")
_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def to_json(value: Any) -> Any:
    """A dataclass, mapping or list as plain tables and lists; None for numbers JSON lacks (not finite)."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(kind: type[T], value: Any, where: str) -> T:
    """The dataclass `kind` from a table.

    Fields may be numbers, text, literals, other dataclasses, tuples, string-keyed mappings and unions of these;
    dataclasses in one union are told apart by their field `kind`.

    Raises:
        InputError: a field is unknown, missing or of another type; the message says where, beginning with `where`.
    """
    result: T = _read(kind, value, where)
    return result


def _read(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _dataclass(hint, value, where)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(hint), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise _wrong(where, value, f"one of {', '.join(map(str, get_args(hint)))}")
        return value
    if origin is tuple:
        return _tuple(get_args(hint), value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, value, "a table")
        return {key: _read(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    return _plain(hint, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, value, "a table")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(value) - set(known)):
        raise InputError(f"{where} has the unknown entry {', '.join(unknown)}; known are {', '.join(known)}")
    missing = [
        name
        for name, field in known.items()
        if name not in value and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; add it")
    arguments = {name: _read(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _one_of(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in choices:
        return None
    if isinstance(value, Mapping):
        tables = [choice for choice in choices if is_dataclass(choice)]
        fitting = [choice for choice in tables if len(tables) == 1 or _kind_of(choice) == value.get("kind")]
        if fitting:
            return _read(fitting[0], value, where)
        kinds = ", ".join(str(_kind_of(choice)) for choice in tables)
        raise InputError(
            f"{where} is of kind {value.get('kind')!r}; it must be one of {kinds or 'no tables'}"
        )
    others = [choice for choice in choices if choice is not types.NoneType and not is_dataclass(choice)]
    if not others:
        raise _wrong(where, value, "a table" + (" or null" if types.NoneType in choices else ""))
    return _read(others[0], value, where)


def _kind_of(choice: Any) -> Any:
    """The value of the literal field `kind` of a dataclass, or None."""
    return next((field.default for field in fields(choice) if field.name == "kind"), None)


def _tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(where, value, "a list")
    hints = items[:1] * len(value) if items[1:] == (...,) else items
    if len(hints) != len(value):
        raise InputError(f"{where} has {len(value)} entries; {len(hints)} are needed")
    return tuple(
        _read(hint, item, f"{where}[{n}]") for n, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _plain(hint: Any, value: Any, where: str) -> Any:
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(where, value, _PLAIN[hint])
    if hint is float and not math.isfinite(value):
        raise _wrong(where, value, "a finite number")
    return float(value) if hint is float else value


def _wrong(where: str, value: Any, needed: str) -> InputError:
    shown = repr(value)
    return InputError(f"{where} is {shown if len(shown) <= 60 else shown[:57] + '...'}; {needed} is needed")
