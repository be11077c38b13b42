"""Where voxels lie in space: named frames, image geometry, and every conversion between frames.

All matrices are 4x4, float64, and act on column vectors (x, y, z, 1). Arrays are stored (D, H, W) = (z, y, x);
sizes, spacings, points and vectors are written (x, y, z). Nothing here needs PyTorch: `points.py` holds what does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from pddnet.errors import InputError

Matrix = npt.NDArray[np.float64]
Triple = tuple[float, float, float]

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SMALLEST_DETERMINANT = 1e-3
_INDEX_TOLERANCE = 1e-6  # voxels


class Frame(Enum):
    """The coordinate frames points are expressed in."""

    INDEX = "continuous voxel index (i, j, k), voxel centres at whole numbers"
    LPS = "mm, to the patient's left, posterior, superior (ITK, DICOM)"
    RAS = "mm, to the patient's right, anterior, superior (Slicer, NIfTI)"
    CUBE = "(-1, 1) from the centre of the first to the centre of the last voxel (align_corners=True)"


@dataclass(frozen=True)
class ImageGeometry:
    """A regular grid in space.

    Args:
        size: number of voxels along (x, y, z).
        spacing: distance of voxel centres in mm along the grid's axes.
        origin: centre of voxel (0, 0, 0), mm, LPS.
        direction: 3x3, rows LPS, column a the unit vector of grid axis a; left-handed and oblique are allowed.

    Raises:
        InputError: a size below 1, a spacing that is not positive and finite, a singular direction.
    """

    size: tuple[int, int, int]
    spacing: Triple = (1.0, 1.0, 1.0)
    origin: Triple = (0.0, 0.0, 0.0)
    direction: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def __post_init__(self) -> None:
        if any(int(n) != n for n in self.size):
            raise InputError(f"size is {self.size}; whole numbers of voxels are needed")
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        object.__setattr__(self, "spacing", _triple(self.spacing, "spacing"))
        object.__setattr__(self, "origin", _triple(self.origin, "origin"))
        rows = np.asarray(self.direction, dtype=np.float64)
        if rows.size != 9:
            raise InputError(f"direction has {rows.size} numbers; a 3x3 matrix is needed")
        object.__setattr__(self, "direction", tuple(_triple(row, "direction") for row in rows.reshape(3, 3)))
        if len(self.size) != 3 or min(self.size) < 1:
            raise InputError(f"size is {self.size}; three counts of at least 1 voxel are needed")
        if min(self.spacing) <= 0:
            raise InputError(
                f"spacing is {self.spacing} mm; three positive lengths are needed: correct the image header"
            )
        if abs(np.linalg.det(self._direction)) < _SMALLEST_DETERMINANT:
            raise InputError(
                f"direction {self.direction} is singular: two axes of the image point the same way. "
                "Correct the direction cosines in the image header"
            )

    @property
    def _direction(self) -> Matrix:
        return np.asarray(self.direction, dtype=np.float64)

    @property
    def has_right_angles(self) -> bool:
        """Whether the axes are orthonormal, as NIfTI files and most tools assume."""
        return bool(np.allclose(self._direction.T @ self._direction, np.eye(3), atol=1e-4))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W): the size in array order."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def centre(self) -> Matrix:
        """Centre of the field of view, (x, y, z) mm LPS."""
        return self.to_lps((np.asarray(self.size) - 1) / 2)

    @property
    def extent(self) -> Matrix:
        """Edge lengths of the field of view, voxel edges included, (x, y, z) along the grid's axes, mm."""
        return np.asarray(np.asarray(self.size) * np.asarray(self.spacing), dtype=np.float64)

    def matrix(self, source: Frame, target: Frame) -> Matrix:
        """The 4x4 matrix that takes points in frame `source` to frame `target`.

        Raises:
            InputError: CUBE is asked for and the grid is one voxel thick along an axis.
        """
        return self._index_to(target) @ np.linalg.inv(self._index_to(source))

    def to_lps(self, index: npt.ArrayLike) -> Matrix:
        """Continuous index (..., 3) to points (..., 3) in mm, LPS."""
        return transform_points(self.matrix(Frame.INDEX, Frame.LPS), np.asarray(index, dtype=np.float64))

    def to_index(self, points_lps: npt.ArrayLike) -> Matrix:
        """Points (..., 3) in mm, LPS to continuous index (..., 3)."""
        return transform_points(self.matrix(Frame.LPS, Frame.INDEX), np.asarray(points_lps, dtype=np.float64))

    def corners(self) -> Matrix:
        """The eight outer corners of the field of view (voxel edges, not centres), (8, 3) mm LPS."""
        bounds = [(-0.5, n - 0.5) for n in self.size]
        return self.to_lps(np.array([(x, y, z) for z in bounds[2] for y in bounds[1] for x in bounds[0]]))

    def samples(self, count: int) -> Matrix:
        """`count` points along each axis, evenly from edge to edge of the field of view, (count^3, 3) mm LPS."""
        axes = [np.linspace(-0.5, n - 0.5, count) for n in self.size]
        return self.to_lps(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))

    def cropped(self, start: Sequence[int], size: Sequence[int]) -> ImageGeometry:
        """The grid of the same voxels from index `start`, of `size` voxels; both may reach beyond this grid."""
        return replace(self, size=(size[0], size[1], size[2]), origin=tuple(self.to_lps(np.asarray(start))))

    def index_range(
        self, points_lps: npt.ArrayLike, beyond: float = 0.0
    ) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The first and last index (x, y, z) of this grid, grown by whole voxels where that takes, that span points.

        Args:
            points_lps: (N, 3), mm, LPS.
            beyond: how many voxels outside the outermost voxel centres a point may lie and still count as spanned.
        """
        index, reach = self.to_index(points_lps), beyond + _INDEX_TOLERANCE
        first = np.minimum(np.floor(index.min(0) + reach), 0).astype(int)
        last = np.maximum(np.ceil(index.max(0) - reach), np.asarray(self.size) - 1).astype(int)
        return (int(first[0]), int(first[1]), int(first[2])), (int(last[0]), int(last[1]), int(last[2]))

    def spanning(self, first: Sequence[int], last: Sequence[int]) -> ImageGeometry:
        """The grid of the same voxels from index `first` to index `last`, both included."""
        return self.cropped(first, [high - low + 1 for low, high in zip(first, last, strict=True)])

    def coarsened(self, factors: Sequence[int]) -> ImageGeometry:
        """The grid of blocks of `factors` (x, y, z) voxels, centred on the blocks; partial blocks count as whole."""
        steps = np.asarray(factors)
        return ImageGeometry(
            size=tuple(-(-n // int(f)) for n, f in zip(self.size, steps, strict=True)),  # type: ignore[arg-type]
            spacing=_triple(np.asarray(self.spacing) * steps, "spacing"),
            origin=_triple(self.to_lps((steps - 1) / 2), "origin"),
            direction=self.direction,
        )

    def reordered_to_ras(self) -> ImageGeometry:
        """The same voxels, axes permuted and flipped to run most nearly to right, anterior, superior."""
        # [r, a]: how far grid axis a points along RAS axis r
        towards_ras = _RAS_FROM_LPS[:3, :3] @ self._direction
        order = max(
            itertools.permutations(range(3)), key=lambda p: sum(abs(towards_ras[r, p[r]]) for r in range(3))
        )
        flipped = [towards_ras[r, axis] < 0 for r, axis in enumerate(order)]
        corner = np.zeros(3)
        for axis, flip in zip(order, flipped, strict=True):
            corner[axis] = self.size[axis] - 1 if flip else 0
        signs = np.where(flipped, -1.0, 1.0)
        direction = self._direction[:, list(order)] * signs
        return ImageGeometry(
            size=(self.size[order[0]], self.size[order[1]], self.size[order[2]]),
            spacing=_triple([self.spacing[axis] for axis in order], "spacing"),
            origin=_triple(self.to_lps(corner), "origin"),
            direction=tuple(_triple(row, "direction") for row in direction),  # type: ignore[arg-type]
        )

    def is_close(self, other: ImageGeometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same size and all corners within `tolerance_mm`."""
        return self.size == other.size and bool(
            np.abs(self.corners() - other.corners()).max() <= tolerance_mm
        )

    def _index_to(self, frame: Frame) -> Matrix:
        matrix = np.eye(4)
        if frame in (Frame.LPS, Frame.RAS):
            matrix[:3, :3] = self._direction * np.asarray(self.spacing)  # scales the columns
            matrix[:3, 3] = self.origin
        if frame is Frame.RAS:
            matrix = _RAS_FROM_LPS @ matrix
        if frame is Frame.CUBE:
            if min(self.size) < 2:
                raise InputError(
                    f"the grid has size {self.size}; cube coordinates need 2 voxels or more along each axis"
                )
            matrix[:3, :3] = np.diag(2 / (np.asarray(self.size) - 1))
            matrix[:3, 3] = -1
        return matrix


def transform_points(matrix: Matrix, points: Matrix) -> Matrix:
    """Apply a 4x4 matrix to points (..., 3): rotation, scaling and translation."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def transform_vectors(matrix: Matrix, vectors: Matrix) -> Matrix:
    """Apply a 4x4 matrix to vectors (..., 3): as for points, without the translation."""
    return np.asarray(vectors @ matrix[:3, :3].T)


def lps_to_ras(vectors_lps: Matrix) -> Matrix:
    """Points or vectors (..., 3) from LPS to RAS; the same function goes back."""
    return np.asarray(vectors_lps * np.array([-1.0, -1.0, 1.0]), dtype=np.float64)


def _triple(values: npt.ArrayLike, name: str) -> Triple:
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    if numbers.size != 3 or not np.isfinite(numbers).all():
        raise InputError(f"{name} is {numbers.tolist()}; three finite numbers (x, y, z) are needed")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
