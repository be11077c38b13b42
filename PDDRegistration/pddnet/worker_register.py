"""The worker's main task: register two scans, bring over what belongs to them, judge it, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pddnet import registration
from pddnet.config import Preset, load_preset, overridden
from pddnet.devices import resolve_device
from pddnet.errors import InsufficientMemoryError, is_out_of_memory
from pddnet.inversion import inverse_grid, invert
from pddnet.job import (
    RESULT,
    FieldFile,
    ImageFile,
    Options,
    RegisterFiles,
    RegisterRequest,
    WarpedSegmentation,
    save_array,
    save_field,
)
from pddnet.memory import peak_memory_mb
from pddnet.metrics import FieldQuality, inverse_residual
from pddnet.progress import Listener, Progress, Reporter
from pddnet.quality_report import Judge, NamedMask, WarpedSegment, landmark_errors
from pddnet.registration import RegistrationResult
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, resample, sampled_on
from pddnet.worker_inputs import LoadedSegmentation, RegistrationInputs, read_inputs
from pddnet.world import sequence

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
    outputs = _Outputs(inputs, found, reporter)
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


@dataclass(frozen=True)
class _Outputs:
    """What comes of one registration. All images pass through the very field that is returned."""

    inputs: RegistrationInputs
    found: RegistrationResult
    reporter: Reporter

    def written(self, folder: Path, with_inverse: bool) -> tuple[RegisterFiles, Report]:
        """Make everything, and write it at the end."""
        inputs, reporter, fixed = self.inputs, self.reporter, self.inputs.fixed.geometry
        with reporter.stage("warp", "bringing the moving scan onto the fixed one"):
            displacement = inputs.frames.displacement(self.found.displacement, fixed)
            warped = self._warped_scan(displacement)
        with reporter.stage("segmentations", "bringing the segmentations over"):
            segmentations = [self._warped(item, displacement) for item in inputs.segmentations]
        with reporter.stage("jacobian", "local changes of volume and uncertainty"):
            determinant = inputs.frames.jacobian(displacement, fixed)
            uncertainty = sampled_on(self.found.uncertainty.std_mm, fixed)
        with reporter.stage("inverse", "inverting the transform"):
            inverse, residual = self._inverse(displacement)
        with reporter.stage("quality", "measuring the quality"):
            judge = Judge(
                fixed,
                displacement,
                inputs.frames.fixed_to_world,
                determinant,
                uncertainty,
                self._references(),
            )
            segments = judge.judged(list(self._segments(judge, segmentations)), reporter.tick)
            report = _summary(displacement, determinant, uncertainty, residual)
            report |= {"landmarks_mm": self._landmarks(displacement), "segments": segments}
        with reporter.stage("write", "handing over the results"):
            writer = _Writer(folder)
            files = RegisterFiles(
                displacement=writer.field("displacement", displacement),
                inverse=writer.field("inverse", inverse) if with_inverse else None,
                warped=writer.image("warped", _in_type(warped.data, inputs.moving_dtype), warped),
                segmentations=tuple(
                    WarpedSegmentation(
                        tuple(
                            writer.image(
                                f"segmentation-{n}-layer-{m}", _in_type(labels.data, layer.dtype), labels
                            )
                            for m, (labels, layer) in enumerate(zip(layers, item.layers, strict=True))
                        )
                    )
                    for n, (layers, item) in enumerate(zip(segmentations, inputs.segmentations, strict=True))
                ),
                jacobian=writer.image("jacobian", determinant.data.numpy(), determinant),
                uncertainty=writer.image("uncertainty", uncertainty.data.numpy(), uncertainty),
            )
        return files, report

    def _through(
        self, displacement: SpatialTransform | None, from_world: SpatialTransform | None
    ) -> SpatialTransform:
        """From the fixed scan's frame to one in the moving world, with the registration or without."""
        to_world = self.inputs.frames.fixed_to_world
        return sequence(to_world, displacement, from_world) or AffineTransform.identity()

    def _warped_scan(self, displacement: DisplacementField) -> Volume:
        through = self._through(displacement, self.inputs.frames.world_to_moving)
        return resample(self.inputs.moving, self.inputs.fixed.geometry, through)

    def _warped(
        self, segmentation: LoadedSegmentation, displacement: DisplacementField | None
    ) -> list[LabelMap]:
        through = self._through(displacement, segmentation.from_world)
        layers = []
        for layer in segmentation.layers:
            layers.append(resample(layer.labels, self.inputs.fixed.geometry, through))
            self.reporter.tick()
        return layers

    def _inverse(self, displacement: DisplacementField) -> tuple[DisplacementField, Volume]:
        grid = self.inputs.frames.moving_grid(self.inputs.moving.geometry)
        inverse, _ = invert(displacement, inverse_grid(displacement, grid), self.reporter.tick)
        return inverse, inverse_residual(inverse, displacement)

    def _references(self) -> list[NamedMask]:
        given = self.inputs.fixed_segmentation
        return _named(given, self._warped(given, None)) if given else []

    def _segments(self, judge: Judge, warped: list[list[LabelMap]]) -> Iterator[WarpedSegment]:
        for item, layers in zip(self.inputs.segmentations, warped, strict=True):
            comparable = any(judge.reference(segment.name) for segment in item.segments)
            before = _named(item, self._warped(item, None)) if comparable else [None] * len(item.segments)
            for earlier, after in zip(before, _named(item, layers), strict=True):
                yield WarpedSegment(item.name, earlier, after)

    def _landmarks(self, displacement: DisplacementField) -> dict[str, list[float]] | None:
        return landmark_errors(*self.inputs.landmarks, displacement) if self.inputs.landmarks else None


def _named(segmentation: LoadedSegmentation, layers: list[LabelMap]) -> list[NamedMask]:
    return [NamedMask(s.name, layers[s.layer].data, s.value) for s in segmentation.segments]


def _summary(
    displacement: DisplacementField, determinant: Volume, uncertainty: Volume, residual: Volume
) -> Report:
    lengths = displacement.vectors.norm(dim=-1)
    quality = FieldQuality.of(determinant)
    return {
        "displacement_mm": {"mean": float(lengths.mean()), "max": float(lengths.max())},
        "folding_percent": 100 * quality.folding_fraction,
        "jacobian": {
            "min": quality.smallest_determinant,
            "max": float(determinant.data.max()),
            "std": quality.jacobian_std,
        },
        "uncertainty_mm": {"mean": uncertainty.mean(), "max": float(uncertainty.data.max())},
        "inverse_residual_mm": {"mean": residual.mean(), "max": float(residual.data.max())},
    }


def _in_type(values: torch.Tensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values in the type they came in: rounded and kept within its range where it holds whole numbers."""
    array = values.numpy()
    if dtype.kind in "iu" and array.dtype.kind == "f":
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array.astype(np.float64)), limits.min, limits.max)
    if dtype.kind == "b":
        array = array > 0.5
    return np.asarray(array.astype(dtype))


@dataclass(frozen=True)
class _Writer:
    """Writes arrays into `result`."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / RESULT).mkdir(exist_ok=True)

    def image(self, name: str, array: npt.NDArray[Any], image: Volume | LabelMap) -> ImageFile:
        return save_array(self.folder, f"{RESULT}/{name}.npy", array, image.geometry)

    def field(self, name: str, field: DisplacementField) -> FieldFile:
        return save_field(self.folder, f"{RESULT}/{name}.npy", field.vectors.numpy(), field.geometry)
