"""The folder a registration leaves behind: complete, or not there at all."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

import pddnet
from pddnet.errors import RegistrationCancelled
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.interop.files import replacing_folder
from pddnet.inversion import inverse_grid, invert
from pddnet.metrics import FieldQuality, inverse_residual, jacobian_determinant
from pddnet.strict_json import to_json
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField, sampled_on

if TYPE_CHECKING:
    from pddnet.registration import RegistrationResult

Report = dict[str, Any]
Written = TypeVar("Written")
_REPORT = "report.json"
_LARGE_VOXELS = 1 << 26


def write_result(
    result: RegistrationResult,
    fixed: Volume,
    moving: Volume,
    out: Path,
    labels: Mapping[str, LabelMap] | None = None,
    inverse: bool = False,
    inputs: Mapping[str, Path] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Report:
    """Write a registration's transform, images and report into the folder `out`.

    `transform.h5` takes fixed to moving points, `inverse-transform.h5` the other way. `warped.nii.gz`, warped
    label maps, `uncertainty.nii.gz` (mm), `entropy.nii.gz` and `jacobian.nii.gz` are on the fixed grid.
    `report.json` says how it went. Files of an earlier registration are replaced at the very end.

    Args:
        labels: label maps in the moving scan's space by name. One alone becomes `warped-labels.nii.gz`,
            several become `warped-<name>.nii.gz`.
        inverse: whether to write the inverse transform too.
        inputs: files the report names, with their SHA-256.
        cancelled: asked between files and while their content is made.

    Returns:
        What `report.json` holds.

    Raises:
        InputError: `out` cannot be a folder that is written into.
        RegistrationCancelled: `cancelled` said so; nothing was written.
    """

    def check() -> None:
        if cancelled():
            raise RegistrationCancelled("cancelled while writing; nothing was written")

    field = replace(result.displacement, fixed_geometry=fixed.geometry)
    with (
        replacing_folder(out, _files_of_earlier_report(out)) as folder,
        _Writer(folder, fixed.data.numel()) as writer,
    ):
        writer.transform("transform", field)
        report = _report(result, fixed, moving, inputs or {})
        for name, image in _images(result, fixed, moving, labels or {}, check):
            check()
            writer.image(name, image)
            if name == "jacobian" and isinstance(image, Volume):
                report |= _field_quality(image)
            del image  # before the next one is made
        if inverse:
            report["inverse_residual_mm"] = _write_inverse(writer, field, moving.geometry, check)
        writer.finish()
        report["files"] = sorted([path.name for path in folder.iterdir()] + [_REPORT])
        report = dict(to_json(report))
        text = json.dumps(report, indent=2, allow_nan=False)
        (folder / _REPORT).write_text(text + "\n", encoding="utf-8")
    return report


def warped_names(labels: Mapping[str, LabelMap]) -> dict[str, str]:
    """The name of each label map's warped file, without suffix."""
    return {name: "warped-labels" if len(labels) == 1 else f"warped-{name}" for name in labels}


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "pddnet": pddnet.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "SimpleITK": interop.version(),
    }


def _images(
    result: RegistrationResult,
    fixed: Volume,
    moving: Volume,
    labels: Mapping[str, LabelMap],
    check: Callable[[], None],
) -> Iterator[tuple[str, Volume | LabelMap]]:
    field, grid = result.displacement, fixed.geometry
    yield "jacobian", jacobian_determinant(field, grid, check)
    yield "warped", field.warp(moving, grid, check)
    yield "uncertainty", sampled_on(result.uncertainty.std_mm, grid, check)
    yield "entropy", sampled_on(result.uncertainty.entropy, grid, check)
    for name, file_name in warped_names(labels).items():  # small files: the last one is soon written
        yield file_name, field.warp(labels[name], grid, check)


class _Writer:
    """Writes one file in the background while the next one's content is made; used as a context.

    Large images, of which memory may not hold two, are waited for.
    """

    def __init__(self, folder: Path, voxels: int) -> None:
        self._folder = folder
        self._wait = voxels > _LARGE_VOXELS
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()  # waits: a folder that goes away must not be written into

    def finish(self) -> None:
        """Wait for the file that is being written, and raise what went wrong with it."""
        if self._writing is not None:
            self._writing.result()

    def transform(self, name: str, transform: DisplacementField) -> None:
        """Write a transform."""
        self._start(interop.write_transform, self._folder / f"{name}.h5", transform)

    def image(self, name: str, image: Volume | LabelMap) -> None:
        """Write an image of the fixed grid."""
        path = self._folder / f"{name}.nii.gz"
        if isinstance(image, LabelMap):
            self._start(interop.write_label_map, path, image)
        else:
            self._start(interop.write_volume, path, image)

    def _start(self, write: Callable[[Path, Written], None], path: Path, content: Written) -> None:
        self.finish()  # no more than one at a time: each of them holds an image
        self._writing = self._thread.submit(write, path, content)
        if self._wait:
            self.finish()


def _write_inverse(
    writer: _Writer, field: DisplacementField, moving: ImageGeometry, check: Callable[[], None]
) -> dict[str, float]:
    grid = inverse_grid(field, moving)
    inverse, _ = invert(field, grid, check)
    writer.transform("inverse-transform", inverse)
    residual = inverse_residual(inverse, field)
    return {"mean": residual.mean(), "max": float(residual.data.max())}


def _report(result: RegistrationResult, fixed: Volume, moving: Volume, inputs: Mapping[str, Path]) -> Report:
    lengths = result.displacement.vectors.square().sum(-1).sqrt()
    return {
        "seconds": result.seconds,
        "stage_seconds": dict(result.stage_seconds),
        "peak_memory_mb": result.peak_memory_mb,
        "preset": getattr(result.preset, "name", result.preset),
        "device": str(result.device),
        "warnings": list(result.warnings),
        "displacement_mm": {"mean": float(lengths.mean()), "max": float(lengths.max())},
        "uncertainty_mean_mm": result.uncertainty.std_mm.mean(),
        "versions": versions(),
        "fixed": asdict(fixed.geometry),
        "moving": asdict(moving.geometry),
        "inputs": {name: {"path": str(path), "sha256": _sha256(path)} for name, path in inputs.items()},
    }


def _field_quality(determinant: Volume) -> Report:
    quality = FieldQuality.of(determinant)
    return {
        "folding_percent": 100 * quality.folding_fraction,
        "jacobian_std": quality.jacobian_std,
        "log_jacobian_std": quality.log_jacobian_std,
        "smallest_jacobian": quality.smallest_determinant,
    }


def _sha256(path: Path) -> str:
    """Of a file's bytes, or of the files in a folder one after the other by name."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def _files_of_earlier_report(out: Path) -> list[str]:
    """Files an earlier registration wrote into `out`, by its report; without names that lead elsewhere."""
    try:
        report = json.loads((out / _REPORT).read_text(encoding="utf-8"))
        names = [str(name) for name in report["files"]]
    except (OSError, ValueError, KeyError, TypeError):  # no report of ours: nothing is known to be obsolete
        return []
    return [name for name in names if name == Path(name).name]
