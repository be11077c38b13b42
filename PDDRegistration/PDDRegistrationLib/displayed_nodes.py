"""The nodes of one registration that can be shown."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass
class DisplayedNodes:
    """The nodes of one registration, as far as there are any."""

    fixed: Any
    moving: Any
    warped: Any = None
    transform: Any = None
    inverse: Any = None
    jacobian: Any = None
    uncertainty: Any = None
    fixedSegmentations: tuple[Any, ...] = ()
    movingSegmentations: tuple[Any, ...] = ()
    warpedSegmentations: tuple[Any, ...] = ()


def without(nodes: DisplayedNodes, removed: Any) -> DisplayedNodes:
    """The same nodes but one that is no longer in the scene."""
    changes: dict[str, Any] = {}
    for field in fields(nodes):
        value = getattr(nodes, field.name)
        if isinstance(value, tuple) and removed in value:
            changes[field.name] = tuple(node for node in value if node is not removed)
        elif value is removed:
            changes[field.name] = None
    return replace(nodes, **changes)
