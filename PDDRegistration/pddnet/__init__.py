"""Deformable registration of medical scans with probabilistic dense displacements."""

from pddnet import metrics
from pddnet.config import available_presets, load_preset
from pddnet.registration import RegistrationResult, register

__version__ = "0.1.0"

__all__ = ["RegistrationResult", "available_presets", "load_preset", "metrics", "register"]
