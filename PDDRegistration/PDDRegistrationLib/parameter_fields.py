"""Attributes that live in a parameter node: descriptors for classes whose objects have it as `node`.

Reading never fails: what cannot be read counts as the default, and `problem` says so. Writing a value that could not be
read back is an error. Writing what is there already tells nobody.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _

_SWITCHES = {True: "true", False: "false", None: ""}


class ParameterField:
    """One attribute kept as text; subclasses say how."""

    def __init__(self, default: Any) -> None:
        self.default = default
        self.name = ""

    def __set_name__(self, _owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, _kind: type | None = None) -> Any:
        if owner is None:
            return self
        try:
            return self._stored(owner)
        except ValueError:
            return self.default

    def __set__(self, owner: Any, value: Any) -> None:
        text = self.toText(value)
        self.fromText(text)
        if owner.node.GetParameter(self.name) != text or not owner.node.HasParameter(self.name):
            owner.node.SetParameter(self.name, text)

    def problem(self, owner: Any) -> str:
        """Why the stored value is not used, or ""."""
        try:
            self._stored(owner)
        except ValueError as error:
            return _("{name} is not used as it was saved: {reason}.").format(name=self.name, reason=error)
        return ""

    def toText(self, value: Any) -> str:
        """The text of a value.

        Raises:
            ValueError: it cannot be kept.
        """
        raise NotImplementedError

    def fromText(self, text: str) -> Any:
        """The value of a text.

        Raises:
            ValueError: it is not the text of a value.
        """
        raise NotImplementedError

    def _stored(self, owner: Any) -> Any:
        if not owner.node.HasParameter(self.name):
            return self.default
        return self.fromText(owner.node.GetParameter(self.name))


class TextField(ParameterField):
    """Text as it is; `needed`: not empty."""

    def __init__(self, default: str = "", needed: bool = False) -> None:
        super().__init__(default)
        self._needed = needed

    def toText(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(_("{value!r} is not text").format(value=value))
        return value

    def fromText(self, text: str) -> str:
        if self._needed and not text:
            raise ValueError(_("it is empty"))
        return text


class SwitchField(ParameterField):
    """True or False, or None where the default is None."""

    def toText(self, value: Any) -> str:
        if value is not None and not isinstance(value, bool):
            raise ValueError(_("{value!r} is neither true nor false").format(value=value))
        return _SWITCHES[value]

    def fromText(self, text: str) -> bool | None:
        values = {
            text: value for value, text in _SWITCHES.items() if value is not None or self.default is None
        }
        if text not in values:
            raise ValueError(_("{text!r} is neither true nor false").format(text=text))
        return values[text]


class NumberField(ParameterField):
    """A finite number of `kind`, int or float, at least `least` or above `above`; None where the default is None."""

    def __init__(
        self, default: float | None, kind: type = int, least: float = -math.inf, above: float = -math.inf
    ) -> None:
        super().__init__(default)
        self._kind, self._least, self._above = kind, least, above

    def toText(self, value: Any) -> str:
        if value is None:
            return ""
        if self._kind is int and value != int(value):
            raise ValueError(_("{value} is not a whole number").format(value=value))
        return repr(self._kind(value))

    def fromText(self, text: str) -> Any:
        if not text and self.default is None:
            return None
        try:
            value = self._kind(text)
        except ValueError as error:
            raise ValueError(_("{text!r} is not a number that fits").format(text=text)) from error
        if not math.isfinite(value) or value < self._least or value <= self._above:
            raise ValueError(_("{value} is out of range").format(value=value))
        return value


class JsonField(ParameterField):
    """A table of texts, numbers, lists and tables; a new one at each reading, so change and set it."""

    def __init__(self) -> None:
        super().__init__(None)

    def __get__(self, owner: Any, _kind: type | None = None) -> Any:
        value = super().__get__(owner, _kind)
        return {} if value is None else value

    def toText(self, value: Any) -> str:
        try:
            return json.dumps(dict(value), sort_keys=True, allow_nan=False)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def fromText(self, text: str) -> dict[str, Any]:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(_("it is not a table"))
        return value


class NodesField:
    """Nodes of the parameter node's scene, a tuple, kept as references."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds
        self.name = ""

    def __set_name__(self, _owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, _kind: type | None = None) -> Any:
        return self if owner is None else tuple(node for node in self._stored(owner) if self._fits(node))

    def __set__(self, owner: Any, nodes: Sequence[Any]) -> None:
        for node in nodes:
            self._check(owner, node)
        wanted = [node.GetID() for node in nodes]
        count = owner.node.GetNumberOfNodeReferences(self.name)
        if wanted == [owner.node.GetNthNodeReferenceID(self.name, number) for number in range(count)]:
            return
        before = owner.node.StartModify()
        owner.node.RemoveNodeReferenceIDs(self.name)
        for identity in wanted:
            owner.node.AddNodeReferenceID(self.name, identity)
        owner.node.EndModify(before)

    def problem(self, owner: Any) -> str:
        """Why a stored node is not used, or ""."""
        wrong = [node.GetName() for node in self._stored(owner) if not self._fits(node)]
        if not wrong:
            return ""
        return _("{name} is not used as it was saved: {nodes} is of another kind.").format(
            name=self.name, nodes=", ".join(wrong)
        )

    def _stored(self, owner: Any) -> list[Any]:
        count = owner.node.GetNumberOfNodeReferences(self.name)
        nodes = (owner.node.GetNthNodeReference(self.name, number) for number in range(count))
        return [node for node in nodes if node is not None]

    def _fits(self, node: Any) -> bool:
        return any(node.IsA(kind) for kind in self._kinds)

    def _check(self, owner: Any, node: Any) -> None:
        if not self._fits(node):
            raise ValueError(
                _("{name} cannot be {node}, a {kind}; choose one of {kinds}").format(
                    name=self.name,
                    node=node.GetName(),
                    kind=node.GetClassName(),
                    kinds=", ".join(self._kinds),
                )
            )
        if node.GetScene() is not owner.node.GetScene():
            raise ValueError(
                _("{name} cannot be {node}, which is not in the scene; add it first").format(
                    name=self.name, node=node.GetName()
                )
            )


class NodeField(NodesField):
    """A node of the parameter node's scene or None, kept as a reference."""

    def __get__(self, owner: Any, _kind: type | None = None) -> Any:
        nodes = super().__get__(owner, _kind)
        return nodes if owner is None else next(iter(nodes), None)

    def __set__(self, owner: Any, node: Any) -> None:
        super().__set__(owner, () if node is None else (node,))
