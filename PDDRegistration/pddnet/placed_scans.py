"""Two scans on coarse grids, and how well one fits the other through an affine transform.

Both grids are isotropic and have the same spacing. Transforms are 4x4, from fixed to moving points, mm LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from pddnet.features.mind_ssc import mind_ssc
from pddnet.geometry import Frame, ImageGeometry, Matrix
from pddnet.preprocessing import WorkingScan
from pddnet.sampling import grid_sample

_AIR_VOXELS = 2  # kept around the body
_MULTIPLE = 4  # voxels along an axis: a coarse scan is halved twice
_TINY = 1e-6


@dataclass(frozen=True)
class PlacedScan:
    """A scan and the grid it lies on."""

    scan: WorkingScan
    grid: ImageGeometry

    def around_body(self) -> PlacedScan:
        """The part that holds the body and two voxels of air, grown to multiples of 4; all of it without a body.

        Where the grid is grown the image is continued, and nothing is known.
        """
        low, high = [0, 0, 0], list(self.grid.shape)
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            present = self.scan.body[0].amax(others).nonzero().flatten()
            if len(present):
                low[axis] = max(0, int(present[0]) - _AIR_VOXELS)
                high[axis] = min(high[axis], int(present[-1]) + 1 + _AIR_VOXELS)
        window = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        scan = self.scan.cropped(window)
        size = [-(-(b - a) // _MULTIPLE) * _MULTIPLE for a, b in zip(low, high, strict=True)]
        fill = [
            n for wanted, have in zip(size, scan.image.shape[1:], strict=True) for n in (wanted - have, 0)
        ][::-1]
        image = F.pad(scan.image[None], fill, mode="replicate")[0]
        grown = WorkingScan(image, F.pad(scan.known, fill), F.pad(scan.body, fill))
        return PlacedScan(grown, self.grid.cropped(low[::-1], size[::-1]))

    def halved(self) -> PlacedScan:
        """On a grid of twice the spacing: the mean of what is known; the majority decides what is known and body."""
        scan = self.scan
        share, body, known_image = (_pooled(x) for x in (scan.known, scan.body, scan.image * scan.known))
        image = torch.where(share > 0, known_image / share.clamp(min=_TINY), _pooled(scan.image))
        known = (share > 0.5).to(image)
        halved = WorkingScan(image, known, (body > 0.5).to(image) * known)
        return PlacedScan(halved, self.grid.coarsened((2, 2, 2)))

    @property
    def body_centre(self) -> Matrix:
        """Centre of mass of the body, mm LPS; the middle of the grid where there is no body."""
        mass, centre = self.scan.body[0].double().cpu(), []
        total = float(mass.sum())
        if total == 0:
            return self.grid.centre
        for axis in (2, 1, 0):  # x, y, z
            profile = mass.sum([other for other in range(3) if other != axis])
            centre.append(float(profile @ torch.arange(len(profile), dtype=profile.dtype)) / total)
        return self.grid.to_lps(np.asarray(centre))

    def through(self, transform: Matrix, grid: ImageGeometry) -> WorkingScan:
        """This scan at the points that `transform` takes the points of `grid` to; its border is held."""
        index = self.grid.matrix(Frame.LPS, Frame.INDEX) @ transform @ grid.matrix(Frame.INDEX, Frame.LPS)
        cube = _cube_points(index, grid, self.grid).to(self.scan.image)
        source = torch.cat((self.scan.image, self.scan.known, self.scan.body))  # (3, D, H, W)
        sampled = grid_sample(source, cube, align_corners=False)
        inside = cube.abs().amax(-1) <= 1
        known = ((sampled[1:2] > 0.5) & inside).to(source)
        return WorkingScan(sampled[:1], known, (sampled[2:] > 0.5).to(source) * known)


@dataclass(frozen=True)
class Comparison:
    """What is seen through a transform.

    Args:
        dissimilarity: 0 for the same scan, 1 for strangers.
        moving: (C, d, h, w), the moving scan's features at the fixed grid's points.
        squared: (1, d, h, w), the squared difference of features, as a share of that of strangers.
        weights: (1, d, h, w), 1 where the scans are compared, else 0.
        count: how many voxels the dissimilarity is a mean over.
    """

    dissimilarity: float
    moving: torch.Tensor
    squared: torch.Tensor
    weights: torch.Tensor
    count: float


@dataclass(frozen=True)
class ScanPair:
    """A fixed and a moving scan on coarse grids of the same spacing."""

    fixed: PlacedScan
    moving: PlacedScan

    @cached_property
    def features(self) -> torch.Tensor:
        """The fixed scan's, (C, d, h, w)."""
        return features_of(self.fixed.scan.image)

    @cached_property
    def counted(self) -> torch.Tensor:
        """Where the fixed scan counts, (1, d, h, w): its body, or all it knows where there is none."""
        scan = self.fixed.scan
        return scan.body if bool(scan.body.any()) else scan.known

    @cached_property
    def strangers(self) -> float:
        """Mean squared difference of the features of two unrelated voxels of the fixed body."""
        count = self.counted.sum().clamp(min=1)
        mean = (self.features * self.counted).sum((1, 2, 3), keepdim=True) / count
        apart = (self.features - mean).square().sum(0) * self.counted[0]
        return max(float(2 * apart.sum(dtype=torch.float64) / count), _TINY)

    def halved(self) -> ScanPair:
        """Both scans on grids of twice the spacing."""
        return ScanPair(self.fixed.halved(), self.moving.halved())

    def compare(self, transform: Matrix) -> Comparison:
        """Compare the moving scan, seen through a transform, with the fixed one.

        The mean is over the fixed body and what the moving body covers besides. Where the moving scan shows nothing
        the scans count as strangers, so that a small overlap does not pay.
        """
        seen = self.moving.through(transform, self.fixed.grid)
        moving = features_of(seen.image)
        squared = (moving - self.features).square_().sum(0, keepdim=True) / self.strangers
        compared = self.counted * seen.known
        weights = compared + self.fixed.scan.known * (1 - self.counted) * seen.body
        unseen = (self.counted - compared).sum(dtype=torch.float64)
        count = float(weights.sum(dtype=torch.float64) + unseen)
        total = float((weights * squared).sum(dtype=torch.float64) + unseen)
        return Comparison(total / max(count, 1.0), moving, squared, weights, count)


def features_of(image: torch.Tensor) -> torch.Tensor:
    """MIND-SSC and the intensity of (1, d, h, w): (13, d, h, w)."""
    return torch.cat((mind_ssc(image[None], dilation=1)[0], image))


def _cube_points(index_map: Matrix, grid: ImageGeometry, source: ImageGeometry) -> torch.Tensor:
    """Where a 4x4 matrix of indices takes the points of `grid`: (d, h, w, 3), -1 and 1 at the edges of `source`.

    An affine map of a regular grid is a sum of one vector for each axis.
    """
    scale = 2 / np.asarray(source.size, dtype=np.float64)
    linear, shift = index_map[:3, :3] * scale[:, None], (index_map[:3, 3] + 0.5) * scale - 1
    x, y, z = (
        torch.as_tensor(np.arange(n)[:, None] * linear[:, axis] + (shift if axis == 2 else 0)).float()
        for axis, n in enumerate(grid.size)
    )
    return z[:, None, None] + (y[:, None] + x)


def _pooled(values: torch.Tensor) -> torch.Tensor:
    return F.avg_pool3d(values[None], 2)[0]
