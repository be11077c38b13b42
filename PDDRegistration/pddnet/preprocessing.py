"""From two scans of any geometry to tensors on one working grid: checks, intensity scaling, resampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from pddnet.config import GRID_MULTIPLE, Intensity
from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry
from pddnet.points import transform_points_torch
from pddnet.sampling import dilated
from pddnet.scan_sampling import ScanSampler
from pddnet.volume import LabelMap, Volume
from pddnet.warp import SpatialTransform

_AIR_VOXELS = 8  # kept around the body
# points along each axis that tell whether two fields of view meet: more for a small moving scan
_OVERLAP_POINTS = (17, 101)
_HU_AIR = -500.0


@dataclass(frozen=True)
class WorkingScan:
    """A scan on the working grid.

    Args:
        image: (1, D, H, W), scaled intensities.
        known: (1, D, H, W), 1 where the scan has data and its mask allows, else 0.
        body: (1, D, H, W), `known` and not air.
    """

    image: torch.Tensor
    known: torch.Tensor
    body: torch.Tensor

    def cropped(self, window: tuple[slice, slice, slice]) -> WorkingScan:
        """The part inside a window of array indices (D, H, W)."""
        where = (slice(None), *window)
        return WorkingScan(
            self.image[where].contiguous(), self.known[where].contiguous(), self.body[where].contiguous()
        )


def check_scan(scan: Volume, role: str) -> None:
    """Refuse a scan that cannot be registered.

    Raises:
        InputError: NaN or infinite voxels, one constant value, or fewer than 2 voxels along an axis; names `role`.
    """
    if not isinstance(scan, Volume):
        raise InputError(
            f"{role} is a {type(scan).__name__}; a Volume is needed: read one with read_volume()"
        )
    if min(scan.geometry.size) < 2:
        raise InputError(
            f"the {role} scan has {_times(scan.geometry.size)} voxels; registration is 3-D and needs at least 2 along "
            "each axis: load the whole series"
        )
    low, high = (float(value) for value in torch.aminmax(scan.data))  # NaN where one voxel is
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(scan.data)).sum())
        raise InputError(
            f"the {role} scan has {bad} voxels that are NaN or infinite; replace them, for instance by the value of air"
        )
    if low == high:
        raise InputError(
            f"the {role} scan has the value {low:g} everywhere; there is nothing to align: check the file"
        )


def check_mask(mask: LabelMap | None, scan: Volume, role: str) -> None:
    """Refuse a mask on another grid than its scan, or one that covers nothing; names `role`."""
    if mask is None:
        return
    if not isinstance(mask, LabelMap):
        raise InputError(
            f"the {role} mask is a {type(mask).__name__}; a LabelMap is needed: read it with read_label_map()"
        )
    if not mask.geometry.is_close(scan.geometry, tolerance_mm=1e-2):
        raise InputError(
            f"the {role} mask has {_times(mask.geometry.size)} voxels and does not lie on the {role} scan's grid "
            f"({_times(scan.geometry.size)}); resample it onto the scan with nearest-neighbour interpolation"
        )
    if not bool((mask.data != 0).any()):
        raise InputError(
            f"the {role} mask covers nothing; mark the voxels to use with a value other than 0, or leave the mask out"
        )


def check_overlap(fixed: ImageGeometry, moving: ImageGeometry, start: SpatialTransform) -> None:
    """Refuse scans whose fields of view do not meet after the transform `start`."""
    count = int(np.clip(2 * fixed.extent.max() / moving.extent.min(), *_OVERLAP_POINTS))
    points = torch.as_tensor(fixed.samples(count), dtype=torch.float64)
    index = transform_points_torch(moving.matrix(Frame.LPS, Frame.INDEX), start.apply(points))
    size = torch.tensor(moving.size, dtype=torch.float64)
    if not bool(((index >= -0.5) & (index <= size - 0.5)).all(-1).any()):
        apart = np.linalg.norm(fixed.centre - moving.centre)
        raise InputError(
            "the fields of view of the fixed and the moving scan do not overlap (their centres are "
            f"{apart:.0f} mm apart); check that both scans show the same region, or align them first "
            "with an initial transform ('centres' puts one centre onto the other)"
        )


@dataclass(frozen=True)
class Scaling:
    """Intensities `low` and `high` become 0 and 1, cut beyond where `clamp`; above `foreground` (scaled) is body."""

    low: float
    high: float
    clamp: bool
    foreground: float

    @classmethod
    def of(cls, scan: Volume, intensity: Intensity) -> Scaling:
        """The scaling of one scan; "auto" must have been resolved before."""
        clamp = intensity.kind != "divisor"
        return cls(*_bounds(scan, intensity), clamp, intensity.foreground)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Scaled intensities."""
        return self.apply_(image.clone())

    def apply_(self, image: torch.Tensor) -> torch.Tensor:
        """The same, in place."""
        image.sub_(self.low).div_(self.high - self.low)
        return image.clamp_(0, 1) if self.clamp else image


@dataclass(frozen=True)
class ScanSource:
    """A scan, its mask and its scaling, to be resampled onto one working grid after another."""

    scan: Volume
    mask: LabelMap | None
    scaling: Scaling
    device: torch.device

    @cached_property
    def _sampler(self) -> ScanSampler:
        allowed = None if self.mask is None else self.mask.data
        return ScanSampler(self.scan.data, allowed, self.scan.geometry, self.device)

    def on(
        self,
        grid: ImageGeometry,
        transform: SpatialTransform,
        between_slabs: Callable[[], None] = lambda: None,
    ) -> WorkingScan:
        """The scan seen through `transform` (grid point -> scan point, mm LPS), linearly interpolated and scaled.

        From its outer voxels a scan fades into its fill value within a voxel; it is known where less than half is fill.
        """
        fill = self.scan.fill_value
        air = float(self.scaling.apply(torch.tensor([fill])))
        image = torch.full((1, *grid.shape), air, device=self.device)
        known = torch.zeros((1, *grid.shape), device=self.device)
        for part in self._sampler.samples(grid, transform):
            # the weight that is missing is that of the fill value
            image[0][part.window] = self.scaling.apply_(part.values.add_(1 - part.weight, alpha=fill))
            known[0][part.window] = part.allowed > 0.5
            between_slabs()
        bright = dilated((image > self.scaling.foreground).view(torch.uint8)).view(torch.bool)
        between_slabs()
        return WorkingScan(image, known, torch.where(bright, known, 0.0))


def resolved(intensity: Intensity, fixed: Volume, moving: Volume) -> Intensity:
    """ "auto" replaced by the window where both scans look like CT in HU, by percentiles elsewhere."""
    if intensity.kind != "auto":
        return intensity
    both_ct = all(scan.fill_value < _HU_AIR for scan in (fixed, moving))
    return replace(intensity, kind="window" if both_ct else "percentiles")


def body_window(scans: tuple[WorkingScan, WorkingScan]) -> tuple[slice, slice, slice]:
    """The part of the working grid (D, H, W) that holds both bodies and some air; sizes stay multiples of 16."""
    body = torch.maximum(scans[0].body[0], scans[1].body[0])
    plane, line = body.amax(0), body.amax(2)  # (H, W) and (D, H)
    window = []
    for axis, present in enumerate((line.amax(1), plane.amax(1), plane.amax(0))):
        present = present.nonzero().flatten()
        n = body.shape[axis]
        low, high = (int(present[0]), int(present[-1]) + 1) if len(present) else (0, n)
        count = min(n, -(-(high - low + 2 * _AIR_VOXELS) // GRID_MULTIPLE) * GRID_MULTIPLE)
        start = min(max(0, (low + high - count) // 2), n - count)
        window.append(slice(start, start + count))
    return window[0], window[1], window[2]


def on_working_grid(
    scan: Volume,
    mask: LabelMap | None,
    grid: ImageGeometry,
    transform: SpatialTransform,
    scaling: Scaling,
    device: torch.device,
    between_slabs: Callable[[], None] = lambda: None,
) -> WorkingScan:
    """Resample a scan through `transform` (grid point -> scan point, mm LPS) and scale its intensities.

    A scan much finer than the grid is averaged over whole voxel blocks first, so that nothing aliases.
    """
    return ScanSource(scan, mask, scaling, device).on(grid, transform, between_slabs)


def _bounds(scan: Volume, intensity: Intensity) -> tuple[float, float]:
    if intensity.kind == "window":
        return intensity.low, intensity.high
    if intensity.kind == "divisor":
        return 0.0, intensity.divisor
    values = scan.data.flatten()[:: max(1, scan.data.numel() // 1_000_000)].cpu().numpy()
    percentiles = (intensity.low_percentile, intensity.high_percentile)
    ranks = [round(p / 100 * (len(values) - 1)) for p in percentiles]
    low, high = (float(value) for value in np.partition(values, ranks)[ranks])
    return (low, high) if high > low else (float(scan.data.min()), float(scan.data.max()))


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in size)
