"""Images in space: an intensity volume and a label map, each a tensor with its geometry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry


@dataclass(frozen=True)
class Volume:
    """A scalar image.

    Args:
        data: (D, H, W), float32; converted if it is of another real type.
        geometry: where the voxels lie.

    Raises:
        InputError: the tensor is not 3-D or its shape is not the geometry's.
    """

    data: torch.Tensor
    geometry: ImageGeometry

    def __post_init__(self) -> None:
        _check_shape(self.data, self.geometry, "data")
        object.__setattr__(self, "data", self.data.to(torch.float32))

    @cached_property
    def fill_value(self) -> float:
        """The value that stands for "outside the scan": the smallest finite one (air in CT, background in MR)."""
        lowest = float(self.data.min())
        if math.isfinite(lowest):
            return lowest
        finite = self.data[torch.isfinite(self.data)]
        return float(finite.min()) if finite.numel() else 0.0

    def mean(self) -> float:
        """The mean over all voxels."""
        return float(self.data.double().mean())


@dataclass(frozen=True)
class LabelMap:
    """A segmentation: one whole number for each voxel, 0 for background.

    Args:
        data: (D, H, W); whole numbers in any type, kept as int32.
        geometry: where the voxels lie.
        names: what the labels stand for; may be empty or partial.

    Raises:
        InputError: the tensor is not 3-D, has another shape than the geometry, or holds values
            that are not whole numbers of 32 bits.
    """

    data: torch.Tensor
    geometry: ImageGeometry
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_shape(self.data, self.geometry, "data")
        whole = self.data.to(torch.int32)
        may_not_fit = self.data.is_floating_point() or self.data.dtype == torch.int64
        if may_not_fit and not torch.equal(whole.to(self.data.dtype), self.data):
            bad = self.data[whole.to(self.data.dtype) != self.data][0].item()
            raise InputError(
                f"the label map holds the value {bad:g}; labels are whole numbers up to 2^31. "
                "If it was resampled, do so again with nearest-neighbour interpolation"
            )
        object.__setattr__(self, "data", whole)

    @property
    def labels(self) -> list[int]:
        """The labels present, without the background, in rising order."""
        return [int(value) for value in torch.unique(self.data) if value != 0]

    def name(self, label: int) -> str:
        """The label's name, or "label N" where none is given."""
        return self.names.get(label, f"label {label}")


def _check_shape(data: torch.Tensor, geometry: ImageGeometry, name: str) -> None:
    if data.ndim != 3:
        raise InputError(
            f"{name} has shape {tuple(data.shape)}; a 3-D tensor (D, H, W) is needed: choose one channel or time point"
        )
    if tuple(data.shape) != geometry.shape:
        raise InputError(
            f"{name} has shape {tuple(data.shape)} and its geometry {geometry.shape} (D, H, W); they must agree"
        )
