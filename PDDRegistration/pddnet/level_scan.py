"""A scan on the working grid with what the levels of a registration ask of it, each thing computed once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from pddnet.config import FeatureScale, LatticeLevel
from pddnet.features.mind_ssc import CHANNELS, mind_ssc
from pddnet.lattice import Lattice, sample_displaced, warp_on
from pddnet.lattice_correlation import at_control_points
from pddnet.preprocessing import WorkingScan
from pddnet.sampling import block_mean

Hook = Callable[[], None]

FIELD_STEP = 2
_CELL: dict[FeatureScale, int] = {"coarse": 2, "fine": 2, "full": 1}  # working voxels


class LevelScan:
    """A scan and its features.

    Args:
        scan: on the working grid, (1, D, H, W).

    Attributes:
        voxels: (D, H, W).
        half: the lattice of cells of two working voxels, which fields lie on.
        known, body: the scan's, averaged over these cells, (1, D / 2, H / 2, W / 2).
    """

    def __init__(self, scan: WorkingScan) -> None:
        self.voxels = (scan.image.shape[1], scan.image.shape[2], scan.image.shape[3])
        self.half = Lattice.of_cells(self.voxels, FIELD_STEP)
        self.known, self.body = (block_mean(x, FIELD_STEP) for x in (scan.known, scan.body))
        self._image, self._pooled = scan.image, block_mean(scan.image, FIELD_STEP)
        self._at_rest: dict[FeatureScale, torch.Tensor] = {}

    def features(self, level: LatticeLevel, field: torch.Tensor | None, between: Hook) -> torch.Tensor:
        """Features on the lattice of cells of `level.step` voxels: (C, D', H', W').

        Twelve MIND-SSC channels and the weighted intensity; the sub^3 finer cells of a cell follow as channels. Scaled
        so that the sum of squared differences over channels is the mean over these sub-cells.

        Args:
            field: what the scan is seen through, (3, D / 2, H / 2, W / 2), working voxels; None for the scan as it is.
        """
        if field is None:
            found = self._resting(level.features, between)
        else:
            found = self._described(level.features, self._moved(level.features, field, between), between)
        pooled = block_mean(found, level.step // level.sub // _CELL[level.features])
        if level.intensity_weight != 1:
            pooled = pooled.clone() if pooled is found and field is None else pooled
            pooled[CHANNELS] *= level.intensity_weight
        return _space_to_depth(pooled, level.sub)

    def point_features(self, level: LatticeLevel, between: Hook) -> torch.Tensor:
        """`features` of the scan as it is, at the control points only: (C, K_d, K_h, K_w)."""
        stride = level.spacing // level.step
        if (level.features, level.step, stride) != ("full", 1, 2):
            return at_control_points(self.features(level, None, between), stride)
        points = self._image.new_empty((CHANNELS + 1, *(n // stride for n in self.voxels)))
        mind_ssc(
            self._image[None],
            dilation=2,
            stride=stride,
            at_voxels=True,
            out=points[None, :CHANNELS],
            between_slabs=between,
        )
        points[CHANNELS] = level.intensity_weight * at_control_points(self._image, stride)[0]
        return points

    def _resting(self, scale: FeatureScale, between: Hook) -> torch.Tensor:
        if scale == "full":  # large, and asked for once
            return self._described(scale, self._image, between)
        if scale not in self._at_rest:
            image = self._pooled if scale == "coarse" else self._image
            self._at_rest[scale] = self._described(scale, image, between)
        return self._at_rest[scale]

    def _moved(self, scale: FeatureScale, field: torch.Tensor, between: Hook) -> torch.Tensor:
        """The image that features of this scale are taken from, seen through the field."""
        if scale == "coarse":
            return sample_displaced(self._pooled, self.half, field)
        return warp_on(self._image, Lattice(self.voxels, 1, 0.0), field, self.half, between)

    def _described(self, scale: FeatureScale, image: torch.Tensor, between: Hook) -> torch.Tensor:
        """MIND-SSC and the intensity of an image (1, D, H, W), which for coarse features is the pooled one."""
        stride = 2 if scale == "fine" else 1
        out = image.new_empty((CHANNELS + 1, *(n // stride for n in image.shape[1:])))
        mind_ssc(
            image[None],
            dilation=1 if scale == "coarse" else 2,
            stride=stride,
            out=out[None, :CHANNELS],
            between_slabs=between,
        )
        out[CHANNELS:] = block_mean(image, stride)
        return out


def _space_to_depth(features: torch.Tensor, sub: int) -> torch.Tensor:
    if sub == 1:
        return features
    channels, depth, height, width = features.shape
    blocks = features.reshape(channels, depth // sub, sub, height // sub, sub, width // sub, sub)
    blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5) / math.sqrt(sub**3)  # (C, sub, sub, sub, D', H', W')
    return blocks.reshape(channels * sub**3, depth // sub, height // sub, width // sub)
