"""What the machine is and how fast it moves and multiplies numbers, measured with the threads that a benchmark uses."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_COPIED_ELEMENTS = 1 << 26  # 256 MB of float32: more than a core's own caches hold
_MATRIX_SIZE = 1536
_CACHED_ELEMENTS = 1 << 18  # 1 MB, shared by the cores
_MINIMA = 100
_TRIES = 5


@dataclass(frozen=True)
class Work:
    """The least that a computation has to do.

    Args:
        bytes: read and written, once each.
        flops: additions, multiplications, comparisons and exponentials, one each.
    """

    bytes: float
    flops: float


@dataclass(frozen=True)
class MachineLimits:
    """What this machine reaches with plain torch, best of a few tries.

    Args:
        copy_gb_s: 10^9 bytes a second, read and written, from one large array to another.
        in_place_gb_s: the same, of one large array that is overwritten.
        gemm_gflop_s: 10^9 floating-point operations a second in a product of two float32 matrices.
        elementwise_gop_s: 10^9 minima of two numbers a second, of arrays that stay in the cores' caches.
    """

    copy_gb_s: float
    in_place_gb_s: float
    gemm_gflop_s: float
    elementwise_gop_s: float

    def least_seconds(self, work: Work) -> float:
        """No less than this is possible: the larger of the time for the bytes and that for the operations."""
        bandwidth = 1e9 * max(self.copy_gb_s, self.in_place_gb_s)
        return max(work.bytes / bandwidth, work.flops / (1e9 * self.gemm_gflop_s))


def measure_limits(
    device: torch.device, elements: int = _COPIED_ELEMENTS, matrix_size: int = _MATRIX_SIZE
) -> MachineLimits:
    """Copy and overwrite `elements` numbers of float32 and multiply two square matrices, a few times each."""
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source).copy_(source)  # touched: the first use of memory is slower
    left, right = torch.ones((2, matrix_size, matrix_size), device=device)
    product = left @ right
    few, others = source[:_CACHED_ELEMENTS], target[:_CACHED_ELEMENTS]

    def minima() -> None:
        for _ in range(_MINIMA):
            torch.minimum(few, others, out=others)

    moved = 2 * source.element_size() * elements
    return MachineLimits(
        copy_gb_s=1e-9 * moved / _fastest(lambda: target.copy_(source), device),
        in_place_gb_s=1e-9 * moved / _fastest(lambda: source.mul_(1.0), device),
        gemm_gflop_s=2e-9 * matrix_size**3 / _fastest(lambda: torch.matmul(left, right, out=product), device),
        elementwise_gop_s=1e-9 * _MINIMA * len(few) / _fastest(minima, device),
    )


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What a reader of timings wants to know about the machine; nothing that names it."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few calls."""

    def once() -> float:
        began = now(device)
        work()
        return now(device) - began

    return min(once() for _ in range(_TRIES))


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model; its architecture where nobody says more."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
