"""Images and transforms as .npy files in one folder: how two processes hand over arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry

Array = npt.NDArray[Any]
Row = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageFile:
    """An array (D, H, W) in a .npy file, and where its voxels lie."""

    array: str
    geometry: ImageGeometry


@dataclass(frozen=True)
class AffineFile:
    """A linear transform of points: 4x4, mm LPS, on column vectors (x, y, z, 1)."""

    matrix: tuple[Row, Row, Row, Row]
    kind: Literal["affine"] = "affine"


@dataclass(frozen=True)
class FieldFile:
    """A transform of points as displacements: (D, H, W, 3), float32, mm LPS, held constant beyond the grid."""

    array: str
    geometry: ImageGeometry
    kind: Literal["field"] = "field"


TransformFile = AffineFile | FieldFile


@dataclass(frozen=True)
class LabelsFile:
    """Labels (D, H, W) in a .npy file, where they lie, and their names by number."""

    array: str
    geometry: ImageGeometry
    names: Mapping[str, str]


def save_array(folder: Path, name: str, array: Array, geometry: ImageGeometry) -> ImageFile:
    """Write an array into the folder as `name`, .npy, and say where its voxels lie."""
    np.save(folder / name, np.ascontiguousarray(array), allow_pickle=False)
    return ImageFile(name, geometry)


def save_field(folder: Path, name: str, vectors: Array, geometry: ImageGeometry) -> FieldFile:
    """Write displacements (D, H, W, 3), mm LPS, into the folder as float32."""
    np.save(folder / name, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)
    return FieldFile(name, geometry)


def load_array(folder: Path, image: ImageFile | FieldFile | LabelsFile, what: str) -> Array:
    """The array of an image, (D, H, W), or of a field, (D, H, W, 3).

    Args:
        what: the image's name in messages.

    Raises:
        InputError: the file is missing, damaged, not in the folder, of no numbers, or does not fit the geometry.
    """
    array: Array
    try:
        array = np.load(path_of(folder, image.array, what), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{what}: {image.array} cannot be read ({error}); write it with save_array()"
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} has voxels of type {array.dtype}; whole or real numbers are needed")
    wanted = (*image.geometry.shape, 3) if isinstance(image, FieldFile) else image.geometry.shape
    if array.shape != wanted:
        raise InputError(
            f"{what} has shape {array.shape}; its geometry needs {wanted}: write the one that fits"
        )
    return array


def path_of(folder: Path, name: str, what: str) -> Path:
    """The path of an array's file.

    Raises:
        InputError: the name leads out of the folder or is not of a .npy file.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".npy" or "\\" in name or ":" in name:
        raise InputError(f"{what} has the file '{name}'; a .npy file inside the request's folder is needed")
    return folder / path


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
