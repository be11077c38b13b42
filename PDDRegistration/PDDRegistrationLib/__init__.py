# ruff: noqa: N999  (Slicer modules' libraries are named like their modules)
"""The Slicer side of PDD Registration; importing it imports nothing else.

from PDDRegistrationLib import RegistrationLogic
outputs = RegistrationLogic(slicer.mrmlScene).register(fixed=getNode("CT"), moving=getNode("Atlas"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PDDRegistrationLib.logic import RegistrationLogic

__all__ = ["RegistrationLogic"]


def __getattr__(name: str) -> Any:
    """`RegistrationLogic`, imported when it is first used: the panel must open whatever is installed."""
    if name in __all__:
        return getattr(import_module("PDDRegistrationLib.logic"), name)
    raise AttributeError(
        f"module 'PDDRegistrationLib' has no attribute '{name}'; it offers {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
