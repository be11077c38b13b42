"""The grids a registration works on: geometry alone, without PyTorch and before any voxel is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pddnet.config import GRID_MULTIPLE, Preset
from pddnet.geometry import ImageGeometry, Matrix, transform_points

TO_RAS = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))  # columns: right, anterior, superior in LPS

_KEEP_SPACING_WITHIN = 0.1  # a fixed scan this close to the wanted spacing is used voxel for voxel
_FINEST_SPACING = 2 / 3  # of the fixed scan's, where the preset leaves the spacing open
_MARGIN_VOXELS = (
    8  # how far the moving scan's body may extend the working grid beyond the fixed field of view
)
_COARSE_MARGIN_VOXELS = 64  # the same in the global stage, where the start is not known yet
_UNION_ALLOWANCE = 1.5  # the moving scan's share may make the grid this much larger than asked for
_LEAST_COARSENING = 1.02
_COARSE_EDGE = 36  # voxels along an edge of the fixed field of view, in the global stage
_COARSE = 2  # but not finer than this multiple of the working spacing


def working_geometry(
    fixed: ImageGeometry,
    moving: ImageGeometry,
    start: Matrix,
    spacing_mm: float,
    max_voxels: int,
    margin: int = _MARGIN_VOXELS,
) -> ImageGeometry:
    """The grid both scans are resampled onto: the fixed scan's axes, its field of view, and what the moving adds.

    The moving field of view extends it by at most `margin` voxels on each side. A fixed scan whose spacing is within a
    tenth of the wanted one keeps its own voxels. A `spacing_mm` of 0 asks for two thirds of the fixed scan's finest
    spacing. `start` is the 4x4 matrix from fixed to moving points, mm LPS.
    """
    spacing = _spacing(fixed, spacing_mm, max_voxels)
    corners = transform_points(np.asarray(np.linalg.inv(start), dtype=np.float64), moving.corners())
    grid = _union_grid(fixed, corners, spacing, margin)
    while (excess := math.prod(grid.size) / (_UNION_ALLOWANCE * max_voxels)) > 1:
        spacing *= max(excess ** (1 / 3), _LEAST_COARSENING)  # the margin, in mm, grows with the spacing
        grid = _union_grid(fixed, corners, spacing, margin)
    return grid


def centred_box(scan: ImageGeometry, size: Sequence[int], spacing_mm: float) -> ImageGeometry:
    """A box of voxels around the centre of a scan's field of view, its axes to right, anterior and superior."""
    spacing, counts = (spacing_mm,) * 3, _counts(np.asarray(size))
    at_origin = ImageGeometry(counts, spacing, (0.0, 0.0, 0.0), TO_RAS)
    return ImageGeometry(counts, spacing, tuple(scan.centre - at_origin.centre), TO_RAS)


def _union_grid(fixed: ImageGeometry, moving_corners: Matrix, spacing: float, margin: int) -> ImageGeometry:
    """A grid of about `spacing` mm over the fixed field of view, extended towards the moving scan's corners (LPS)."""
    steps = np.asarray(fixed.spacing)
    if np.all(np.abs(steps / spacing - 1) < _KEEP_SPACING_WITHIN):
        base = fixed
    else:
        cells = np.maximum(1, np.ceil(fixed.extent / spacing - 1e-6)).astype(int)
        first = (spacing / steps - 1) / 2  # index of the first new centre: the outer edges agree
        base = ImageGeometry(_counts(cells), (spacing,) * 3, tuple(fixed.to_lps(first)), fixed.direction)
    reached, size = base.to_index(moving_corners), np.asarray(base.size)
    low = np.maximum(np.minimum(0, np.floor(reached.min(0) + 0.5)), -margin).astype(int)
    high = np.minimum(np.maximum(size, np.ceil(reached.max(0) + 0.5)), size + margin).astype(int)
    return _rounded(base, low, high)


def coarse_grids(
    fixed: ImageGeometry, moving: ImageGeometry, start: Matrix, preset: Preset
) -> tuple[ImageGeometry, ImageGeometry]:
    """The global stage's grids of the fixed scan and of the moving one, both in the fixed scan's space.

    About 36 voxels along an edge of the fixed field of view, or fewer where that is finer than twice the working
    spacing. The moving scan's grid is the fixed one's, extended to its field of view; see `working_geometry`.
    """
    fine = working_geometry(fixed, fixed, np.eye(4), preset.spacing_mm, preset.max_voxels)
    spacing = max(math.cbrt(np.prod(fixed.extent)) / _COARSE_EDGE, _COARSE * max(fine.spacing))
    return (
        working_geometry(fixed, fixed, np.eye(4), spacing, preset.max_voxels),
        working_geometry(fixed, moving, start, spacing, preset.max_voxels, _COARSE_MARGIN_VOXELS),
    )


def _spacing(fixed: ImageGeometry, spacing_mm: float, max_voxels: int) -> float:
    wanted = spacing_mm or min(fixed.spacing) * _FINEST_SPACING
    return max(wanted, math.cbrt(np.prod(fixed.extent) / max_voxels))


def _rounded(base: ImageGeometry, low: Matrix, high: Matrix) -> ImageGeometry:
    """The grid from index `low` to `high`, grown evenly to multiples of 16."""
    size = -(-(high - low) // GRID_MULTIPLE) * GRID_MULTIPLE
    start = low - (size - (high - low)) // 2
    return base.cropped([int(s) for s in start], [int(n) for n in size])


def _counts(values: Matrix) -> tuple[int, int, int]:
    x, y, z = (int(v) for v in values)
    return x, y, z
