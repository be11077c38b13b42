"""Volume nodes to files and back."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from pddnet.errors import InputError
from pddnet.job import ImageFile
from pddnet.job_files import path_of

from .array_steps import parts, readArray, writeArray
from .mrml_geometry import allocate, geometryOfVolume, rasMatrixOf, toVtk, voxelsOf


def exportVolume(node: Any, folder: Path, name: str) -> Generator[None, None, ImageFile]:
    """The voxels of a volume node, in its scalar type, and where they lie.

    Returns:
        The geometry is in the world, a linear parent transform baked in; under a parent that no matrix describes it is
        in the node's own frame, and `exportParents` says what leads to the world.

    Raises:
        InputError: there are no voxels, they have several components, or their matrix is singular.
    """
    geometry = geometryOfVolume(node)
    voxels = voxelsOf(node.GetImageData(), node.GetName())
    path = folder / f"{name}.npy"
    yield from writeArray(path, voxels.shape, voxels.dtype, parts(voxels))
    return ImageFile(path.name, geometry)


def makeVolume(
    image: ImageFile, folder: Path, like: Any = None, className: str = "vtkMRMLScalarVolumeNode"
) -> Generator[None, None, Any]:
    """A volume node, in no scene, of the scalar type of the file.

    Args:
        like: volume node whose place in its own frame the voxels take, exactly; without it the file's geometry counts.
    """
    node = getattr(slicer, className)()
    data = yield from readImage(image, folder, vtk.vtkImageData())
    node.SetAndObserveImageData(data)
    if like is None:
        node.SetIJKToRASMatrix(toVtk(rasMatrixOf(image.geometry)))
    else:
        checkFits(image, like)
        node.CopyOrientation(like)
    return node


def readImage(image: ImageFile, folder: Path, data: Any) -> Generator[None, None, Any]:
    """Fill a new `vtkImageData` with a file's voxels; returns it.

    Raises:
        InputError: the file cannot be read or does not fit its geometry.
    """

    def memory(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if shape != image.geometry.shape:
            raise ValueError(f"it holds {shape} voxels where {image.geometry.shape} were announced")
        return allocate(data, image.geometry.shape, dtype)

    yield from readArray(path_of(folder, image.array, "the result"), "the result", memory)
    return data


def checkFits(image: ImageFile, node: Any) -> None:
    """Whether a file has the grid of a volume node.

    Raises:
        InputError: it has not.
    """
    size = node.GetImageData().GetDimensions() if node.GetImageData() else None
    if image.geometry.size != size:
        raise InputError(
            f"{image.array} has {image.geometry.size} voxels, {node.GetName()} now has {size}: leave the fixed volume "
            "as it is while the registration runs, and register again"
        )
