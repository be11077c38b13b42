"""Transform nodes to files and back. What no matrix describes is sampled; all points and vectors are mm, LPS."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.job import AffineFile, FieldFile, ImageFile, Parents, TransformFile
from pddnet.job_files import path_of

from .array_steps import readArray, writeArray
from .mrml_geometry import (
    FLIP,
    Bent,
    Linear,
    allocate,
    geometryOfVolume,
    rasMatrixOf,
    toNumpy,
    toVtk,
    transformBetween,
)

_POINTS_AT_ONCE = 4000  # some milliseconds, also for an inverse that is found by iteration
_MOST_POINTS = 3_000_000  # 36 MB; needed for control points 20 mm apart across a whole body
_SPACINGS_MM = (32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
_TOLERANCE_MM = 0.02  # at the places tried; elsewhere it may be a few times as much
_PLACES = 200
_MARGIN_MM = 20.0
_LOST_MM, _MOST_LOST = 1.0, 0.05

TransformSteps = Generator[None, None, TransformFile]


def exportTransform(node: Any, fixed: Any, folder: Path, name: str) -> TransformSteps:
    """A first guess of where the moving volume lies: a transform node as it would be applied to the moving volume.

    Args:
        node: its "to parent" direction takes moving to fixed points, as everywhere in Slicer.
        fixed: volume node; where no matrix describes the transform it is sampled over this volume.

    Returns:
        Fixed to moving points, both in the world.
    """
    worldToMoving = transformBetween(None, node)
    return (yield from _export(worldToMoving, _boxInWorld(fixed), folder, name))


def exportParents(fixed: Any, moving: Any, folder: Path) -> Generator[None, None, Parents]:
    """Both ways between the world and each volume that is under a transform which no matrix describes."""
    fixedPair = yield from _exportParent(fixed, folder, "fixed")
    movingPair = yield from _exportParent(moving, folder, "moving")
    return Parents(*fixedPair, *movingPair)


def exportFromWorld(parent: Any, corners: np.ndarray, folder: Path, name: str) -> TransformSteps:
    """World points to points inside the transform node `parent`, near what lies at `corners` (N, 3) in there."""
    box = _boxAround(transformBetween(parent, None)(corners))
    return (yield from _export(transformBetween(None, parent), box, folder, name))


def makeGridTransform(file: ImageFile, folder: Path) -> Generator[None, None, Any]:
    """A grid transform node, in no scene, that takes points of the world to where the displacements lead.

    The displacements are its "from parent" direction, so that a node put under it is moved the other way, as an image
    that is resampled with it.
    """
    image = vtk.vtkImageData()

    shape = (*file.geometry.shape, 3)

    def memory(found: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if found != shape or dtype != np.float32:
            raise ValueError(f"it holds {dtype} numbers {found} where float32 {shape} were announced")
        return allocate(image, file.geometry.shape, dtype, 3)

    vectors = yield from readArray(path_of(folder, file.array, "displacements"), "displacements", memory)
    for plane in vectors:
        plane[..., :2] *= -1  # LPS to RAS
        yield
    node = slicer.vtkMRMLGridTransformNode()
    node.SetAndObserveTransformFromParent(_gridTransform(image, file.geometry))
    return node


def interpolateLinearly(node: Any) -> None:
    """Make a grid transform node that was read from a file mean what it meant when it was made.

    Slicer reads grid transforms with cubic interpolation between their points, whatever they had when they were saved.
    """
    transform = node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    if transform is not None and transform.GetInterpolationMode() != vtk.VTK_LINEAR_INTERPOLATION:
        transform.SetInterpolationModeToLinear()


def hasRightAngles(node: Any) -> bool:
    """Whether the axes of a grid transform node's grid are at right angles."""
    transform = node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    direction = toNumpy(transform.GetGridDirectionMatrix())[:3, :3]
    return bool(np.allclose(direction.T @ direction, np.eye(3), atol=1e-6))


def _gridTransform(image: vtk.vtkImageData, geometry: ImageGeometry) -> Any:
    matrix = rasMatrixOf(geometry)
    direction = np.eye(4)
    direction[:3, :3] = matrix[:3, :3] / np.asarray(geometry.spacing)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(matrix[:3, 3])
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetGridDirectionMatrix(toVtk(direction))
    transform.SetInterpolationModeToLinear()
    return transform


def _exportParent(
    volume: Any, folder: Path, role: str
) -> Generator[None, None, tuple[TransformFile | None, TransformFile | None]]:
    parent = volume.GetParentTransformNode()
    toWorld = transformBetween(parent, None)
    if isinstance(toWorld, Linear):
        return None, None
    _checkInvertible(volume, toWorld, transformBetween(None, parent))
    yield
    there = yield from _export(toWorld, geometryOfVolume(volume), folder, f"{role}_to_world")
    back = yield from _export(transformBetween(None, parent), _boxInWorld(volume), folder, f"world_to_{role}")
    return there, back


def _checkInvertible(volume: Any, there: Bent, back: Bent | Linear) -> None:
    """Refuse a transform that folds the volume: its other direction is a search that ends anywhere."""
    points = shellOf(geometryOfVolume(volume))
    lost = np.linalg.norm(back(there(points)) - points, axis=1) > _LOST_MM
    if lost.mean() > _MOST_LOST:
        raise InputError(
            f"{volume.GetName()} is under a transform that folds over itself ({lost.mean():.0%} of the volume is not "
            "found again on the way back); take the volume out from under it, or choose a smoother transform"
        )


def _boxInWorld(volume: Any) -> ImageGeometry:
    geometry = geometryOfVolume(volume)
    toWorld = transformBetween(volume.GetParentTransformNode(), None)
    points = shellOf(geometry)
    return _boxAround(points if isinstance(toWorld, Linear) else toWorld(points))


def shellOf(geometry: ImageGeometry) -> np.ndarray:
    """Points throughout a grid, its outermost edges included, (N, 3)."""
    axes = [np.linspace(-0.5, n - 0.5, 9) for n in geometry.size]
    return geometry.to_lps(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3))


def _boxAround(points: np.ndarray) -> ImageGeometry:
    """A box with room around points, as a grid of millimetres."""
    low, high = points.min(axis=0) - _MARGIN_MM, points.max(axis=0) + _MARGIN_MM
    return ImageGeometry(tuple(np.ceil(high - low)), (1.0, 1.0, 1.0), tuple(low + 0.5))


def _export(transform: Linear | Bent, box: ImageGeometry, folder: Path, name: str) -> TransformSteps:
    if isinstance(transform, Linear):
        matrix = FLIP @ transform.matrix @ FLIP
        return AffineFile(tuple(tuple(float(x) for x in row) for row in matrix))
    geometry = yield from _fineEnough(transform, box)
    path = folder / f"{name}.npy"
    yield from writeArray(path, (*geometry.shape, 3), np.dtype(np.float32), _sampled(transform, geometry))
    return FieldFile(path.name, geometry)


def _sampled(transform: Bent, geometry: ImageGeometry) -> Iterator[np.ndarray]:
    """Displacements at the points of a grid, (N, 3), in its order."""
    count = int(np.prod(geometry.shape))
    for start in range(0, count, _POINTS_AT_ONCE):
        flat = np.arange(start, min(start + _POINTS_AT_ONCE, count))
        points = geometry.to_lps(np.stack(np.unravel_index(flat, geometry.shape)[::-1], axis=-1))
        yield transform(points) - points


def _fineEnough(transform: Bent, box: ImageGeometry) -> Generator[None, None, ImageGeometry]:
    """The coarsest grid over a box between whose points the transform is as good as linear, or the finest allowed."""
    finest = _finestAllowed(box)
    for spacing in (s for s in _SPACINGS_MM if s > finest):
        grid = _gridOver(box, spacing)
        error = _errorBetweenPoints(transform, grid)
        yield
        if error <= _TOLERANCE_MM:
            return grid
    return _gridOver(box, finest)


def _finestAllowed(box: ImageGeometry) -> float:
    spacing = max(_SPACINGS_MM[-1], float(np.cbrt(np.prod(box.extent) / _MOST_POINTS)))
    while np.prod(_gridOver(box, spacing).shape) > _MOST_POINTS:
        spacing *= 1.01
    return spacing


def _gridOver(box: ImageGeometry, spacing: float) -> ImageGeometry:
    """The same box, edges included, with points about `spacing` apart."""
    size = np.ceil(box.extent / spacing).astype(int) + 1
    return ImageGeometry(
        tuple(size), tuple(box.extent / (size - 1)), tuple(box.to_lps((-0.5, -0.5, -0.5))), box.direction
    )


def _errorBetweenPoints(transform: Bent, grid: ImageGeometry) -> float:
    """The largest error of linear interpolation, mm, at the centres of cells drawn from the grid."""
    cells = np.random.default_rng(0).integers(0, np.asarray(grid.size) - 1, (_PLACES, 3))
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), axis=-1).reshape(8, 3)
    centres = grid.to_lps(cells + 0.5)
    around = grid.to_lps(cells[:, None] + corners)  # (places, 8, 3)
    moved = transform(around.reshape(-1, 3)).reshape(around.shape)
    return float(np.linalg.norm(moved.mean(axis=1) - transform(centres), axis=1).max())
