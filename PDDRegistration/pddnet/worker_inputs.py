"""What a request for a registration names, read from its folder and put onto the grids it belongs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from pddnet.errors import InputError
from pddnet.job import (
    AffineFile,
    ImageFile,
    RegisterRequest,
    Segment,
    Segmentation,
    TransformFile,
    load_array,
    path_of,
    sha256,
)
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, resample
from pddnet.world import WorldFrames

_GRID_TOLERANCE_MM = 1e-2
_LABELS = np.iinfo(np.int32)


@dataclass(frozen=True)
class Layer:
    """One layer of a segmentation, and the type its array came in."""

    labels: LabelMap
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class LoadedSegmentation:
    """A segmentation with its arrays; `from_world` as in the request."""

    name: str
    layers: tuple[Layer, ...]
    segments: tuple[Segment, ...]
    from_world: SpatialTransform | None


@dataclass(frozen=True)
class RegistrationInputs:
    """Everything a registration is given.

    Args:
        moving_dtype: the type the moving array came in.
        start: fixed -> moving point in the scans' own frames, "centres", or None for nothing.
        landmarks: fixed and moving points, (N, 3) each, float64, world.
        hashes: SHA-256 of each array file by what it is.
    """

    fixed: Volume
    moving: Volume
    moving_dtype: np.dtype[Any]
    fixed_mask: LabelMap | None
    moving_mask: LabelMap | None
    frames: WorldFrames
    start: SpatialTransform | Literal["centres"] | None
    segmentations: tuple[LoadedSegmentation, ...]
    fixed_segmentation: LoadedSegmentation | None
    landmarks: tuple[torch.Tensor, torch.Tensor] | None
    hashes: Mapping[str, str]


def read_inputs(request: RegisterRequest, folder: Path) -> RegistrationInputs:
    """Read and check all that a request names.

    Raises:
        InputError: a file is missing or damaged, or does not fit its geometry.
    """
    reader = _Reader(folder, {})
    fixed, _ = reader.volume(request.fixed, "fixed")
    moving, moving_dtype = reader.volume(request.moving, "moving")
    parents = request.parents
    frames = WorldFrames(
        reader.transform(parents.fixed_to_world, "the transform from the fixed scan to the world"),
        reader.transform(parents.world_to_fixed, "the transform from the world to the fixed scan"),
        reader.transform(parents.moving_to_world, "the transform from the moving scan to the world"),
        reader.transform(parents.world_to_moving, "the transform from the world to the moving scan"),
    )
    given = request.fixed_segmentation
    points = request.landmarks and tuple(
        torch.tensor(side, dtype=torch.float64)
        for side in (request.landmarks.fixed, request.landmarks.moving)
    )
    return RegistrationInputs(
        fixed=fixed,
        moving=moving,
        moving_dtype=moving_dtype,
        fixed_mask=reader.mask(request.fixed_mask, fixed, "fixed mask"),
        moving_mask=reader.mask(request.moving_mask, moving, "moving mask"),
        frames=frames,
        start=_start(request, frames, reader),
        segmentations=tuple(
            reader.segmentation(item, f"segmentation {n}") for n, item in enumerate(request.segmentations)
        ),
        fixed_segmentation=reader.segmentation(given, "fixed segmentation") if given else None,
        landmarks=(points[0], points[1]) if points else None,
        hashes=reader.hashes,
    )


def _start(
    request: RegisterRequest, frames: WorldFrames, reader: _Reader
) -> SpatialTransform | Literal["centres"] | None:
    initial = request.initial_transform
    if initial != "centres":
        return frames.start(reader.transform(initial, "the initial transform"))
    if frames == WorldFrames():
        return "centres"
    return frames.start(frames.between_centres(request.fixed.geometry, request.moving.geometry))


@dataclass(frozen=True)
class _Reader:
    """Reads from one folder and keeps the hash of each image."""

    folder: Path
    hashes: dict[str, str]

    def array(self, image: ImageFile, what: str) -> npt.NDArray[Any]:
        array = load_array(self.folder, image, what)
        self.hashes[what] = sha256(path_of(self.folder, image.array, what))
        return array

    def volume(self, image: ImageFile, what: str) -> tuple[Volume, np.dtype[Any]]:
        array = self.array(image, what)
        return Volume(torch.from_numpy(array.astype(np.float32)), image.geometry), array.dtype

    def layer(self, image: ImageFile, what: str) -> Layer:
        array = self.array(image, what)
        if array.dtype.kind not in "biu":
            raise InputError(
                f"{what} has voxels of type {array.dtype}; labels are whole numbers: convert them"
            )
        for label in (int(array.min()), int(array.max())) if array.size else ():
            if not _LABELS.min <= label <= _LABELS.max:
                raise InputError(
                    f"{what} holds the label {label}; labels go from {_LABELS.min} to {_LABELS.max}: renumber"
                )
        return Layer(LabelMap(torch.from_numpy(array.astype(np.int32)), image.geometry), array.dtype)

    def mask(self, image: ImageFile | None, scan: Volume, what: str) -> LabelMap | None:
        """The mask on its scan's grid, by the nearest voxel."""
        if image is None:
            return None
        mask = self.layer(image, what).labels
        if mask.geometry.is_close(scan.geometry, _GRID_TOLERANCE_MM):
            return mask
        return resample(mask, scan.geometry, AffineTransform.identity())

    def segmentation(self, given: Segmentation, what: str) -> LoadedSegmentation:
        layers = tuple(self.layer(image, f"{what} layer {n}") for n, image in enumerate(given.layers))
        from_world = self.transform(given.from_world, f"the transform of {what}")
        return LoadedSegmentation(given.name, layers, given.segments, from_world)

    def transform(self, given: TransformFile | None, what: str) -> SpatialTransform | None:
        if given is None:
            return None
        try:
            if isinstance(given, AffineFile):
                return AffineTransform(np.asarray(given.matrix))
            vectors = load_array(self.folder, given, what).astype(np.float32)
            return DisplacementField(torch.from_numpy(vectors), given.geometry)
        except InputError as error:
            raise InputError(f"{what} cannot be used: {error}") from error
