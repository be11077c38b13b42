"""Memory of this machine and this process, asked of the operating system: Linux, macOS, Windows."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_MB = 1e6
_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_CGROUP_V2 = ("memory.max", "memory.current", "inactive_file")
_CGROUP_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_FORGET_PEAK = "5"  # proc(5), clear_refs
_UNLIMITED = 1 << 60  # cgroup v1 writes a huge number where there is no limit


def available_memory_mb() -> float:
    """Megabytes (10^6 bytes) this process may still take without swapping; infinite where nobody can tell.

    On Linux the smallest of what the kernel calls available and what the control groups of this process
    leave, so that the limit of a container or a batch job counts.
    """
    if sys.platform == "darwin":
        return _macos_available() / _MB
    if sys.platform == "win32":
        return _windows_available() / _MB
    return min(_meminfo_available(_PROC), _cgroup_available(_PROC, _CGROUPS)) / _MB


def peak_memory_mb() -> float:
    """The most megabytes (10^6 bytes) of memory this process has occupied at once so far."""
    if sys.platform == "win32":
        return _windows_peak() / _MB
    status = _PROC / "self" / "status"
    if status.exists():  # getrusage would count a parent's peak from before the fork
        return _kilobytes(status, "VmHWM") * 1024 / _MB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MB  # bytes on macOS


def forget_peak_memory() -> bool:
    """Let `peak_memory_mb` begin anew with what the process occupies now; False where that cannot be asked (Linux can).

    Memory that was freed but stayed with the process is given back first, so that it is not counted.
    """
    clear = _PROC / "self" / "clear_refs"
    if not sys.platform.startswith("linux") or not clear.exists():
        return False
    with suppress(OSError, AttributeError):  # another C library: what it keeps is counted
        ctypes.CDLL(None).malloc_trim(0)
    try:
        clear.write_text(_FORGET_PEAK, encoding="ascii")
    except OSError:  # a container may forbid it
        return False
    return True


def _meminfo_available(proc: Path) -> float:
    meminfo = proc / "meminfo"
    if meminfo.exists():
        return _kilobytes(meminfo, "MemAvailable") * 1024
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float("inf")


def _kilobytes(file: Path, key: str) -> float:
    lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{key}:")), float("inf"))


def _cgroup_available(proc: Path, root: Path) -> float:
    """The least that this process's control group and the ones above it leave, in bytes."""
    left = float("inf")
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root, _CGROUP_V2
        elif "memory" in controllers.split(","):
            base, names = root / "memory", _CGROUP_V1
        else:
            continue
        own = base / path.lstrip("/")
        for group in (own, *own.parents):
            left = min(left, _left_in(group, *names))
            if group == base:
                break
    return left


def _left_in(group: Path, limit_name: str, usage_name: str, cache_name: str) -> float:
    limit, usage = _lines(group / limit_name), _lines(group / usage_name)
    if not limit or not usage or limit[0] == "max" or int(limit[0]) >= _UNLIMITED:
        return float("inf")
    pairs = (line.split() for line in _lines(group / "memory.stat"))
    cache = next((int(value) for name, value in pairs if name == cache_name), 0)  # given back when needed
    return float(max(0, int(limit[0]) - int(usage[0]) + cache))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # no such control group in this container: it sets no limit
        return []


def _macos_available() -> float:
    """Free and inactive pages, by host_statistics64(HOST_VM_INFO64): free, active and inactive come first."""
    system = ctypes.CDLL(None)
    system.mach_host_self.restype = ctypes.c_uint
    counts, length = (ctypes.c_uint32 * 64)(), ctypes.c_uint(64)
    if system.host_statistics64(ctypes.c_uint(system.mach_host_self()), 4, counts, ctypes.byref(length)) != 0:
        return float("inf")
    return float((counts[0] + counts[2]) * os.sysconf("SC_PAGE_SIZE"))


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "available", "page_total", "page_available")),
        *((name, ctypes.c_uint64) for name in ("virtual_total", "virtual_available", "extended")),
    ]


class _MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of the Windows API."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("faults", ctypes.c_uint32),
        *((name, ctypes.c_size_t) for name in ("peak_working_set", "working_set", "peak_paged", "paged")),
        *((name, ctypes.c_size_t) for name in ("peak_other", "other", "page_file", "peak_page_file")),
    ]


def _windows_available() -> float:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    kernel = ctypes.CDLL("kernel32")
    return float(status.available) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else float("inf")


def _windows_peak() -> float:
    counters = _MemoryCounters(length=ctypes.sizeof(_MemoryCounters))
    kernel = ctypes.CDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    found = kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.length)
    return float(counters.peak_working_set) if found else 0.0
