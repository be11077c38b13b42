"""The worker's main task: register two scans, bring over what belongs to them, judge it, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pddnet import registration
from pddnet.config import Preset, load_preset, overridden
from pddnet.devices import resolve_device
from pddnet.errors import InsufficientMemoryError, is_out_of_memory
from pddnet.job import (
    Options,
    RegisterFiles,
    RegisterRequest,
)
from pddnet.memory import peak_memory_mb
from pddnet.progress import Listener, Progress, Reporter
from pddnet.registration import RegistrationResult
from pddnet.worker_inputs import RegistrationInputs, read_inputs
from pddnet.worker_outputs import Outputs

Report = dict[str, Any]
# in percent of the whole
_COSTS = {
    "read": 3.0,
    "register": 82.0,
    "warp": 3.0,
    "segmentations": 3.0,
    "jacobian": 2.0,
    "inverse": 3.0,
    "quality": 3.0,
    "write": 1.0,
}


def register_job(request: RegisterRequest, folder: Path, listener: Listener) -> tuple[RegisterFiles, Report]:
    """Do what a request asks for; the files are written into the folder's `result`.

    Raises:
        InputError, InsufficientMemoryError: as `register`.
    """
    began = time.perf_counter()
    reporter = Reporter(_COSTS, listener.progressed, _ticking(listener))
    preset = _preset(request.options)
    with reporter.stage("read", "reading the scans"):
        inputs = read_inputs(request, folder)
    with reporter.stage("register", "registering"):
        found, fallback = _registered(inputs, preset, request.options, listener)
    for warning in found.warnings:
        listener.logged("warning", warning)
    outputs = Outputs(inputs, found, reporter)
    files, report = outputs.written(folder, request.options.inverse)
    stages = {name: seconds for name, seconds in reporter.seconds.items() if name != "register"}
    reporter.done()
    return files, {
        "seconds": time.perf_counter() - began,
        "stage_seconds": {**found.stage_seconds, **stages},
        "peak_memory_mb": peak_memory_mb(),
        "preset": found.preset,
        "device": found.device,
        "fallback": fallback,
        **report,
        "hashes": dict(inputs.hashes),
    }


def _ticking(listener: Listener) -> Callable[[], bool]:
    def cancelled() -> bool:
        listener.ticked()
        return False

    return cancelled


def _preset(options: Options) -> Preset:
    return overridden(
        load_preset(options.preset), options.levels, options.smoothness, options.instance_iterations
    )


def _registered(
    inputs: RegistrationInputs, preset: Preset, options: Options, listener: Listener
) -> tuple[RegistrationResult, str | None]:
    """The result, and why it was not made on the device asked for, or None."""

    def told(progress: Progress) -> None:
        if progress.stage != "done":
            fraction = (_COSTS["read"] + _COSTS["register"] * progress.fraction) / sum(_COSTS.values())
            listener.progressed(Progress(progress.stage, fraction, progress.message))

    def run(device: str) -> RegistrationResult:
        return registration.register(
            inputs.fixed,
            inputs.moving,
            preset=preset,
            device=device,
            fixed_mask=inputs.fixed_mask,
            moving_mask=inputs.moving_mask,
            initial_transform=inputs.start,
            weights=options.weights,
            global_stage=options.global_stage,
            memory_limit_mb=options.memory_limit_mb,
            on_progress=told,
            cancelled=_ticking(listener),
        )

    device = resolve_device(options.device)
    try:
        return run(str(device)), None
    except Exception as error:
        if not _gpu_is_too_small(error, device, options):
            raise
        reason = " ".join(str(error).split())
    # outside the handler: the exception's frames hold tensors on the GPU
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    message = f"the GPU's memory was not enough ({reason}); continuing on the CPU"
    listener.logged("warning", message)
    return run("cpu"), message


def _gpu_is_too_small(error: Exception, device: torch.device, options: Options) -> bool:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    if isinstance(error, InsufficientMemoryError) and options.memory_limit_mb is not None:
        return False
    return device.type == "cuda" and is_out_of_memory(error)
