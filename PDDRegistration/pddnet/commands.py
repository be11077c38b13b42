"""What each command of the command line does: a report for programs and a text for people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from pddnet import devices, registration
from pddnet.config import available_presets, load_preset
from pddnet.errors import InputError
from pddnet.estimate import estimate_peak_memory_mb
from pddnet.evaluation import evaluate, read_landmarks
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.interop.files import (
    IMAGE_SUFFIXES,
    TRANSFORM_SUFFIXES,
    check_output_folder,
    check_there,
    check_writable,
    stem_of,
)
from pddnet.interop.read_ahead import RegisterImages
from pddnet.inversion import invert as invert_field
from pddnet.memory import available_memory_mb
from pddnet.outputs import versions, write_result
from pddnet.progress import Progress
from pddnet.terminal import Interruption, ProgressDisplay
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, resample

Read = TypeVar("Read")
_CENTRES: Literal["centres"] = "centres"


@dataclass(frozen=True)
class Answer:
    """What a command has to say: `report` for `--json`, `text` without."""

    report: dict[str, Any]
    text: str


@dataclass(frozen=True)
class _Scans:
    fixed: Volume
    moving: Volume
    labels: dict[str, LabelMap]


def register(arguments: argparse.Namespace, interruption: Interruption) -> Answer:
    """Read two scans, register them, write a folder."""
    check_output_folder(arguments.out)
    preset = load_preset(arguments.preset)
    devices.resolve_device(arguments.device)
    inputs = _inputs(arguments)
    for path in inputs.values():
        check_there(path)
    scans = _read_scans(arguments, interruption)
    with closing(ProgressDisplay()) as display:
        result = registration.register(
            scans.fixed,
            scans.moving,
            preset=preset,
            device=arguments.device,
            fixed_mask=_optional(interop.read_label_map, arguments.fixed_mask),
            moving_mask=_optional(interop.read_label_map, arguments.moving_mask),
            initial_transform=_initial_transform(arguments.initial_transform),
            weights=arguments.weights,
            global_stage=False if arguments.no_global_stage else None,
            on_progress=display,
            cancelled=interruption.requested,
            memory_limit_mb=arguments.max_memory,
        )
    report = write_result(
        result,
        scans.fixed,
        scans.moving,
        arguments.out,
        scans.labels,
        inverse=arguments.inverse,
        inputs=inputs,
        cancelled=interruption.requested,
    )
    seconds, folding = report["seconds"], report["folding_percent"]
    text = f"{seconds:.1f} s, folding {folding:.3f} %; results are in {arguments.out}"
    return Answer(report, "\n".join((*(f"warning: {warning}" for warning in result.warnings), text)))


def warp(arguments: argparse.Namespace, _: Interruption) -> Answer:
    """Resample an image or a label map through a transform."""
    check_writable(arguments.out, IMAGE_SUFFIXES)
    transform = interop.read_transform(arguments.transform)
    grid = _grid(arguments.reference) if arguments.reference else _own_grid(transform, "reference")
    if arguments.labels:
        interop.write_label_map(
            arguments.out, resample(interop.read_label_map(arguments.image), grid, transform)
        )
    else:
        interop.write_volume(arguments.out, resample(interop.read_volume(arguments.image), grid, transform))
    return Answer({"out": str(arguments.out), "size": grid.size}, f"warped image is in {arguments.out}")


def invert(arguments: argparse.Namespace, interruption: Interruption) -> Answer:
    """Write the transform from moving to fixed points."""
    check_writable(arguments.out, (*TRANSFORM_SUFFIXES, *IMAGE_SUFFIXES))
    transform, grid = interop.read_transform(arguments.transform), _grid(arguments.reference)
    if isinstance(transform, AffineTransform):
        interop.write_transform(arguments.out, transform.inverse())
        mean = largest = 0.0
    else:
        if not isinstance(transform, DisplacementField):
            fixed_grid = _grid(arguments.fixed) if arguments.fixed else _own_grid(transform, "fixed")
            transform = DisplacementField.sampled(transform, fixed_grid)
        inverse, residual = invert_field(transform, grid, interruption.check)
        interop.write_transform(arguments.out, inverse)
        mean, largest = residual.mean(), float(residual.data.max())
    report = {"out": str(arguments.out), "residual_mm": {"mean": mean, "max": largest}}
    text = f"residual {mean:.4f} mm on average, {largest:.4f} mm at most; the inverse is in {arguments.out}"
    return Answer(report, text)


def evaluate_files(arguments: argparse.Namespace, _: Interruption) -> Answer:
    """Judge a registration by labels, landmarks and its transform."""
    evaluation = evaluate(
        fixed_labels=_optional(interop.read_label_map, arguments.fixed_labels),
        moving_labels=_optional(interop.read_label_map, arguments.moving_labels),
        warped_labels=_optional(interop.read_label_map, arguments.warped_labels),
        transform=_optional(interop.read_transform, arguments.transform),
        landmarks=_optional(read_landmarks, arguments.landmarks),
    )
    return Answer(evaluation.as_dict(), evaluation.table())


def info(arguments: argparse.Namespace, _: Interruption) -> Answer:
    """Versions, devices, presets, and whether a registration would fit into memory."""
    report: dict[str, Any] = {
        "versions": versions(),
        "devices": devices.available(),
        "presets": {name: load_preset(name).description for name in available_presets()},
        "memory_mb": {"available": available_memory_mb()},
    }
    if bool(arguments.fixed) != bool(arguments.moving):
        raise InputError("an estimate of memory needs two scans; give --fixed and --moving")
    if arguments.fixed:
        preset = load_preset(arguments.preset)
        needed = estimate_peak_memory_mb(_grid(arguments.fixed), _grid(arguments.moving), preset)
        report["memory_mb"] |= {"needed": needed, "preset": preset.name}
    return Answer(report, _info_text(report))


def demo(arguments: argparse.Namespace, interruption: Interruption) -> Answer:
    """Make two scans, register them, and show what came of it."""
    from pddnet.demo import run_demo, summary

    check_output_folder(arguments.out)
    with closing(ProgressDisplay()) as display:

        def show(progress: Progress) -> None:
            interruption.check()
            display(progress)

        report = run_demo(arguments.out, preset=arguments.preset, device=arguments.device, on_progress=show)
    return Answer(report, summary(report, arguments.out))


def _inputs(arguments: argparse.Namespace) -> dict[str, Path]:
    start: Path | None = arguments.initial_transform
    named = {
        "fixed": arguments.fixed,
        "moving": arguments.moving,
        "fixed mask": arguments.fixed_mask,
        "moving mask": arguments.moving_mask,
        "initial transform": None if str(start) == _CENTRES else start,
        "preset": _file(arguments.preset),
        "weights": _file(arguments.weights),
    }
    labels = {f"labels {name}": path for name, path in _label_paths(arguments.labels).items()}
    return {name: path for name, path in (named | labels).items() if path is not None}


def _file(name_or_path: str | None) -> Path | None:
    """The path, where a name stands for a file."""
    return Path(name_or_path) if name_or_path and Path(name_or_path).is_file() else None


def _initial_transform(path: Path | None) -> registration.InitialTransform | None:
    return _CENTRES if str(path) == _CENTRES else _optional(interop.read_transform, path)


def _label_paths(paths: Sequence[Path]) -> dict[str, Path]:
    by_name = {stem_of(path): path for path in paths}
    if len(by_name) < len(paths):
        names = ", ".join(stem_of(path) for path in paths)
        raise InputError(
            f"--labels names files alike ({names}), whose results would collide; rename one of them"
        )
    return by_name


def _read_scans(arguments: argparse.Namespace, interruption: Interruption) -> _Scans:
    images: RegisterImages = arguments.images
    fixed = interop.from_sitk(images.fixed.image(interruption.check))
    if not fixed.geometry.has_right_angles:
        raise InputError(
            f"the axes of {arguments.fixed} are not at right angles; resample it onto a grid whose are"
        )
    moving = interop.from_sitk(images.moving.image(interruption.check))
    labels = {}
    for (name, path), image in zip(_label_paths(arguments.labels).items(), images.labels, strict=True):
        labels[name] = interop.label_map_of(image.image(interruption.check), path)
        _check_overlap(path, labels[name].geometry, moving.geometry)
    return _Scans(fixed, moving, labels)


def _check_overlap(path: Path, grid: ImageGeometry, moving: ImageGeometry) -> None:
    index = moving.to_index(grid.corners())
    if (index.max(0) < -0.5).any() or (index.min(0) > np.asarray(moving.size) - 0.5).any():
        raise InputError(f"{path} lies outside the moving scan; give the label map that belongs to that scan")


def _optional(read: Callable[[Path], Read], path: Path | None) -> Read | None:
    return None if path is None else read(path)


def _grid(path: Path) -> ImageGeometry:
    return interop.read_volume(path).geometry


def _own_grid(transform: SpatialTransform, option: str) -> ImageGeometry:
    if isinstance(transform, DisplacementField):
        return transform.geometry
    raise InputError(
        f"a transform without a displacement field has no grid of its own; name an image with --{option}"
    )


def _info_text(report: Mapping[str, Any]) -> str:
    lines = [", ".join(f"{name} {version}" for name, version in report["versions"].items())]
    lines += [f"device {name}: {text}" for name, text in report["devices"].items()]
    lines += [f"preset {name}: {text}" for name, text in report["presets"].items()]
    memory = report["memory_mb"]
    lines.append(f"memory: {memory['available']:.0f} MB available")
    if "needed" in memory:
        enough = "enough" if memory["needed"] <= memory["available"] else "not enough"
        lines.append(
            f"preset {memory['preset']} needs about {memory['needed']:.0f} MB for these scans: {enough}"
        )
    return "\n".join(lines)


BY_NAME: dict[str, Callable[[argparse.Namespace, Interruption], Answer]] = {
    "register": register,
    "warp": warp,
    "invert": invert,
    "evaluate": evaluate_files,
    "info": info,
    "demo": demo,
}
