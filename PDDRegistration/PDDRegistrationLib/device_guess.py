"""Where a registration will be computed, as far as that can be told at once and without importing PyTorch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .installed_versions import installedVersions
from .settings import RegistrationSettings

_DRIVERS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")  # Linux, and Linux within Windows


def likelyDevice(settings: RegistrationSettings) -> str:
    """ "cpu", "cuda" or another device that was chosen; "auto" where nobody can tell before the run."""
    if settings.device != "auto" or settings.python:
        return settings.device
    version = installedVersions(["torch"])["torch"]
    if version is None:
        return "auto"  # it is not installed yet, for one or the other
    if sys.platform == "darwin" or version.endswith("+cpu") or not hasDriver():
        return "cpu"
    return "cuda"


def hasDriver() -> bool:
    """Whether the driver of an NVIDIA graphics card is installed."""
    if os.name == "nt":
        return Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll").exists()
    return any(Path(path).exists() for path in _DRIVERS)
