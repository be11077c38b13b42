"""Where nodes lie: VTK's matrices, oriented images and transforms as numpy arrays and `ImageGeometry`, and back.

MRML speaks RAS, the worker LPS; whatever is named `ras` here is Slicer's, the rest is LPS. All lengths are mm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry, lps_to_ras

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # between RAS and LPS, either way


def toNumpy(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """A 4x4 matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def toVtk(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """A 4x4 matrix."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).reshape(16).tolist())
    return result


def ijkToRas(node: Any) -> np.ndarray:
    """4x4, of a volume node in its own frame."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return toNumpy(matrix)


def geometryOf(indexToRas: np.ndarray, shape: tuple[int, int, int], what: str) -> ImageGeometry:
    """The grid of an array (D, H, W) whose voxel (i, j, k) lies at `indexToRas` @ (i, j, k, 1).

    Raises:
        InputError: the matrix is singular.
    """
    matrix = FLIP @ indexToRas
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if not spacing.all():
        raise InputError(
            f"{what} has voxels of no size (IJK to RAS is {indexToRas.tolist()}); correct its spacing"
        )
    try:
        return ImageGeometry(shape[::-1], tuple(spacing), tuple(matrix[:3, 3]), matrix[:3, :3] / spacing)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def rasMatrixOf(geometry: ImageGeometry) -> np.ndarray:
    """4x4, index to RAS."""
    return geometry.matrix(Frame.INDEX, Frame.RAS)


def voxelsOf(image: vtk.vtkImageData | None, what: str) -> np.ndarray:
    """The voxels of an image, (D, H, W), as they are in memory: do not write.

    Raises:
        InputError: there are none, or more than one number in each.
    """
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None or not scalars.GetNumberOfValues():
        raise InputError(f"{what} has no voxels; load or choose another volume")
    if scalars.GetNumberOfComponents() != 1:
        raise InputError(
            f"{what} has {scalars.GetNumberOfComponents()} numbers in each voxel; registration takes one: "
            "convert it to a scalar volume first"
        )
    if scalars.GetDataType() == vtk.VTK_BIT:
        raise InputError(f"{what} has voxels of one bit; cast it to unsigned char first")
    return numpy_support.vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])


def allocate(
    image: vtk.vtkImageData, shape: tuple[int, int, int], dtype: np.dtype, components: int = 1
) -> np.ndarray:
    """Give an image voxels of arbitrary value; returns them, (D, H, W) or (D, H, W, components), to be written."""
    image.SetDimensions(*shape[::-1])
    image.AllocateScalars(numpy_support.get_vtk_array_type(dtype), components)
    voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return voxels.reshape(shape if components == 1 else (*shape, components))


class Linear:
    """A linear transform of points: `matrix`, 4x4, RAS."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3), LPS."""
        matrix = FLIP @ self.matrix @ FLIP
        return points @ matrix[:3, :3].T + matrix[:3, 3]


class Bent:
    """A transform of points that no matrix describes."""

    def __init__(self, transform: vtk.vtkAbstractTransform) -> None:
        self._transform = transform

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3), LPS."""
        given, moved = vtk.vtkPoints(), vtk.vtkPoints()
        moved.SetDataTypeToDouble()
        given.SetData(numpy_support.numpy_to_vtk(np.ascontiguousarray(lps_to_ras(points)), deep=True))
        self._transform.TransformPoints(given, moved)
        return lps_to_ras(numpy_support.vtk_to_numpy(moved.GetData()))


def transformBetween(source: Any, target: Any) -> Linear | Bent:
    """From the frame inside transform node `source` to that inside `target`; None is the world."""
    general, linear = vtk.vtkGeneralTransform(), vtk.vtkTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, general)
    if slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(general, linear):
        return Linear(toNumpy(linear.GetMatrix()))
    return Bent(general)


def frameOf(node: Any) -> tuple[Any, np.ndarray]:
    """The frame a node is handed over in: the world's where a matrix leads there, else the node's own.

    Returns:
        The transform node inside which the frame is, None for the world, and the 4x4 from the node to the frame, RAS.
    """
    parent = node.GetParentTransformNode()
    toWorld = transformBetween(parent, None)
    return (None, toWorld.matrix) if isinstance(toWorld, Linear) else (parent, np.eye(4))


def geometryOfVolume(node: Any) -> ImageGeometry:
    """The grid of a volume node in the frame it is handed over in, see `frameOf`.

    Raises:
        InputError: it has no voxels or a singular matrix.
    """
    return geometryOf(
        frameOf(node)[1] @ ijkToRas(node), voxelsOf(node.GetImageData(), node.GetName()).shape, node.GetName()
    )
