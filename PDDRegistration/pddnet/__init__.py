"""Deformable registration of medical scans with probabilistic dense displacements."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pddnet import metrics
    from pddnet.config import available_presets, load_preset
    from pddnet.registration import RegistrationResult, register

__version__ = "0.1.0"

__all__ = ["RegistrationResult", "available_presets", "load_preset", "metrics", "register"]

_HOME = {
    "RegistrationResult": "pddnet.registration",
    "available_presets": "pddnet.config",
    "load_preset": "pddnet.config",
    "register": "pddnet.registration",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: PyTorch takes a second or two."""
    if name == "metrics":
        return import_module("pddnet.metrics")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pddnet' has no attribute '{name}'; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
