"""Says whether the system libraries of the off-screen views and of Qt are there, and how to install those that are not.

The wheels of VTK and PySide6 carry everything but these. `make demo` and `make test` ask first, because without them
VTK ends the process and Qt fails to import. Standard library only: any Python 3 runs it, before .venv exists.

    python3 Testing/desktop/check_libraries.py              exit code 1 and the command to type, if something is missing
    python3 Testing/desktop/check_libraries.py --packages   the Debian packages that are missing, on one line
"""

from __future__ import annotations

import ctypes
import os
import sys

EGL = "libEGL.so.1"
# What is loaded -> the Debian package that holds it. VTK opens libEGL and libGL when the first view is made; the rest
# is what QtCore, QtGui, QtWidgets and Qt's off-screen platform are linked to.
LIBRARIES = {
    EGL: "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libstdc++.so.6": "libstdc++6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libz.so.1": "zlib1g",
    "libzstd.so.1": "libzstd1",
}
DRIVER, DRIVER_PACKAGES = "a driver that EGL can draw with", "libegl-mesa0 libgl1-mesa-dri"
PLATFORM_DEVICE, PLATFORM_SURFACELESS = (
    0x313F,
    0x31DD,
)  # EGL_EXT_platform_device, EGL_MESA_platform_surfaceless


def loads(library: str) -> bool:
    """Whether the dynamic loader finds the library and everything that it needs in turn."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def draws() -> bool:
    """Whether EGL finds a driver for some display without a screen; Mesa's driver is no library with a fixed name."""
    if not loads(EGL):
        return False
    egl = ctypes.CDLL(EGL)
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetPlatformDisplay.restype = ctypes.c_void_p
    egl.eglGetPlatformDisplay.argtypes = [ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    candidates = [(PLATFORM_SURFACELESS, None), *((PLATFORM_DEVICE, device) for device in _devices(egl))]
    displays = (egl.eglGetPlatformDisplay(platform, native, None) for platform, native in candidates)
    return any(display and egl.eglInitialize(display, None, None) for display in displays)


def _devices(egl: ctypes.CDLL) -> list[int]:
    """Handles of the graphics devices, by the extension that VTK uses too; none where it is not offered."""
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return []
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    devices, count = (ctypes.c_void_p * 16)(), ctypes.c_int()
    found = prototype(address)(len(devices), devices, ctypes.byref(count))
    return [device for device in devices[: count.value] if device] if found else []


def missing(libraries: dict[str, str] = LIBRARIES) -> dict[str, str]:
    """What is missing -> the Debian packages that bring it, with spaces between."""
    lacking = {library: package for library, package in libraries.items() if not loads(library)}
    return lacking if draws() else lacking | {DRIVER: DRIVER_PACKAGES}


def instructions(lacking: dict[str, str]) -> str:
    """What to tell a person whose machine lacks these."""
    return (
        f"Missing on this machine: {', '.join(lacking)}.\n"
        "The tests and the demonstration draw Slicer's views and Qt's widgets without a screen, which needs them.\n"
        "On Debian or Ubuntu:\n\n"
        f"    sudo apt-get install -y {packages(lacking)}\n\n"
        "On another system install what it calls these packages, then try again."
    )


def packages(lacking: dict[str, str]) -> str:
    """The packages, once each, in a fixed order."""
    return " ".join(sorted(set(" ".join(lacking.values()).split())))


def main(arguments: list[str], libraries: dict[str, str] = LIBRARIES) -> int:
    """The exit code: 0 when everything is there, else 1. The wheels for Windows and macOS need nothing more."""
    os.environ.setdefault("EGL_LOG_LEVEL", "fatal")  # Mesa would print its own lines over ours
    lacking = missing(libraries) if sys.platform == "linux" else {}
    if lacking and arguments == ["--packages"]:
        print(packages(lacking))
    elif lacking:
        print(instructions(lacking), file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
