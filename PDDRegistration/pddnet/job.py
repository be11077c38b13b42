"""What a program asks of its worker and what it gets: requests and results, as files in one folder.

A program writes arrays (`save_array`) and `request.json` (`write_request`) into a folder of its own, starts
`python -m pddnet.worker FOLDER`, and reads one event a line (`parse_event`) from the worker's standard output. Arrays
are .npy files named relative to that folder, the worker's as `result/NAME.npy`. All points and vectors are mm, LPS.

Nothing here needs PyTorch, so that a program without it can ask for a registration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pddnet.errors import InputError
from pddnet.geometry import Triple
from pddnet.job_events import (
    Alive,
    Event,
    Failed,
    Logged,
    Progressed,
    Started,
    Succeeded,
    event_line,
    parse_event,
)
from pddnet.job_files import (
    AffineFile,
    FieldFile,
    ImageFile,
    LabelsFile,
    TransformFile,
    load_array,
    path_of,
    save_array,
    save_field,
    sha256,
)
from pddnet.strict_json import from_json, to_json

__all__ = [
    "REQUEST",
    "RESULT",
    "AffineFile",
    "Alive",
    "DescribeRequest",
    "Event",
    "Failed",
    "FieldFile",
    "ImageFile",
    "LabelsFile",
    "Landmarks",
    "Logged",
    "Options",
    "Parents",
    "Progressed",
    "RegisterFiles",
    "RegisterRequest",
    "Request",
    "Segment",
    "Segmentation",
    "Started",
    "Succeeded",
    "SyntheticFiles",
    "SyntheticRequest",
    "TransformFile",
    "WarpedSegmentation",
    "event_line",
    "load_array",
    "parse_event",
    "path_of",
    "read_request",
    "register_files",
    "save_array",
    "save_field",
    "sha256",
    "synthetic_files",
    "write_request",
]

REQUEST, RESULT = "request.json", "result"


@dataclass(frozen=True)
class Segment:
    """One segment: the voxels of `value` in layer number `layer` of its segmentation."""

    id: str
    name: str
    layer: int
    value: int


@dataclass(frozen=True)
class Segmentation:
    """Segments in layers of whole numbers, each on a grid of its own.

    Args:
        from_world: world point -> point of the segmentation's frame, where that is not the world's.
    """

    name: str
    layers: tuple[ImageFile, ...]
    segments: tuple[Segment, ...]
    from_world: TransformFile | None = None

    def __post_init__(self) -> None:
        for segment in self.segments:
            if not 0 <= segment.layer < len(self.layers):
                raise InputError(
                    f"segment '{segment.name}' is in layer {segment.layer}; there are {len(self.layers)} layers"
                )


# --- requests


@dataclass(frozen=True)
class Parents:
    """Where a scan's frame is not the world's and no matrix leads there: its transforms, both ways."""

    fixed_to_world: TransformFile | None = None
    world_to_fixed: TransformFile | None = None
    moving_to_world: TransformFile | None = None
    world_to_moving: TransformFile | None = None

    def __post_init__(self) -> None:
        for role in ("fixed", "moving"):
            there, back = getattr(self, f"{role}_to_world"), getattr(self, f"world_to_{role}")
            if (there is None) != (back is None):
                raise InputError(
                    f"{role}_to_world and world_to_{role} are needed together; give both or none"
                )


@dataclass(frozen=True)
class Landmarks:
    """Corresponding points in the world, mm LPS, in the same order."""

    fixed: tuple[Triple, ...]
    moving: tuple[Triple, ...]

    def __post_init__(self) -> None:
        if len(self.fixed) != len(self.moving) or not self.fixed:
            raise InputError(
                f"there are {len(self.fixed)} fixed and {len(self.moving)} moving landmarks; equally many are needed, "
                "one or more, in the same order"
            )


@dataclass(frozen=True)
class Options:
    """How to register; see `register` and `overridden`. `inverse` asks for the inverse transform as well."""

    preset: str = "generic"
    device: str = "auto"
    weights: str | None = None
    global_stage: bool | None = None
    levels: int | None = None
    smoothness: float = 1.0
    instance_iterations: int | None = None
    inverse: bool = False
    memory_limit_mb: float | None = None


@dataclass(frozen=True)
class RegisterRequest:
    """Register two scans.

    Args:
        fixed, moving: scans in their own frames: the world's, unless `parents` says otherwise.
        fixed_mask, moving_mask: not 0 where the scan counts, on any grid in its scan's frame.
        initial_transform: fixed -> moving point, both in the world, or "centres".
        segmentations: of the moving scan, to be brought onto the fixed one.
        fixed_segmentation: to compare with, by the names of the segments.
    """

    fixed: ImageFile
    moving: ImageFile
    fixed_mask: ImageFile | None = None
    moving_mask: ImageFile | None = None
    parents: Parents = Parents()
    initial_transform: TransformFile | Literal["centres"] | None = None
    segmentations: tuple[Segmentation, ...] = ()
    fixed_segmentation: Segmentation | None = None
    landmarks: Landmarks | None = None
    options: Options = Options()
    command: Literal["register"] = "register"


@dataclass(frozen=True)
class DescribeRequest:
    """Say which versions and devices there are."""

    command: Literal["describe"] = "describe"


@dataclass(frozen=True)
class SyntheticRequest:
    """Make up two patients; see `pddnet.synthetic.synthetic_patient`."""

    seed_fixed: int = 6
    seed_moving: int = 5
    size: tuple[int, int, int] = (120, 100, 140)
    spacing_mm: float = 3.0
    command: Literal["synthetic"] = "synthetic"


Request = RegisterRequest | DescribeRequest | SyntheticRequest
_REQUESTS: dict[str, type[RegisterRequest] | type[DescribeRequest] | type[SyntheticRequest]] = {
    "register": RegisterRequest,
    "describe": DescribeRequest,
    "synthetic": SyntheticRequest,
}


def write_request(folder: Path, request: Request) -> None:
    """Write `request.json`; the arrays it names must be in the folder already."""
    text = json.dumps(to_json(request), indent=1, allow_nan=False)
    (folder / REQUEST).write_text(text + "\n", encoding="utf-8")


def read_request(folder: Path) -> Request:
    """The request in a folder, every entry of it checked.

    Raises:
        InputError: there is none, or it cannot be understood.
    """
    path = folder / REQUEST
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); write it with write_request()") from error
    command = table.get("command") if isinstance(table, Mapping) else None
    if command not in _REQUESTS:
        raise InputError(f"the request has the command {command!r}; choose one of {', '.join(_REQUESTS)}")
    return from_json(_REQUESTS[command], table, "the request")


# --- results


@dataclass(frozen=True)
class WarpedSegmentation:
    """The layers of one segmentation on the fixed grid, in the order and of the type they were sent."""

    layers: tuple[ImageFile, ...]


@dataclass(frozen=True)
class RegisterFiles:
    """The files of a registration.

    Args:
        displacement: fixed -> moving point in the world, on a lattice that covers the fixed scan.
        inverse: moving -> fixed point in the world, where it was asked for.
        warped: the moving scan on the fixed grid, in the type it was sent.
        segmentations: in the order they were sent.
        jacobian: determinant of the displacement's transform at the fixed voxels, float32.
        uncertainty: mm, at the fixed voxels, float32.
    """

    displacement: FieldFile
    inverse: FieldFile | None
    warped: ImageFile
    segmentations: tuple[WarpedSegmentation, ...]
    jacobian: ImageFile
    uncertainty: ImageFile


@dataclass(frozen=True)
class SyntheticFiles:
    """Two scans nobody was scanned for, and their organs."""

    fixed: ImageFile
    moving: ImageFile
    fixed_labels: LabelsFile
    moving_labels: LabelsFile


def register_files(event: Succeeded) -> RegisterFiles:
    """What a finished registration has written."""
    return from_json(RegisterFiles, event.files, "files")


def synthetic_files(event: Succeeded) -> SyntheticFiles:
    """What a finished request for two patients has written."""
    return from_json(SyntheticFiles, event.files, "files")
