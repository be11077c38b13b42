"""Features, points and labels with their axes in another order, and what was found with them put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AxisOrder:
    """Which of the axes (z, y, x), by number, comes first, second and third.

    Example:
        >>> AxisOrder((2, 0, 1)).grid(torch.zeros(4, 5, 6)).shape
        torch.Size([6, 4, 5])
    """

    axes: tuple[int, int, int]

    @classmethod
    def longest_first(cls, shape: Sequence[int]) -> AxisOrder:
        """For volumes (D, H, W): the longest axis first, the shortest last."""
        first, second, third = sorted(range(3), key=lambda axis: -shape[axis])
        return cls((first, second, third))

    @property
    def back(self) -> AxisOrder:
        """The order that undoes this one."""
        first, second, third = (self.axes.index(axis) for axis in range(3))
        return AxisOrder((first, second, third))

    def features(self, volume: torch.Tensor) -> torch.Tensor:
        """(1, C, D, H, W)."""
        return volume.permute(0, 1, *(2 + axis for axis in self.axes)).contiguous()

    def vectors(self, values: torch.Tensor) -> torch.Tensor:
        """(D, H, W, 3), (x, y, z): the axes and the components."""
        columns = [2 - self.axes[2 - column] for column in range(3)]
        return values.permute(*self.axes, 3)[..., columns]

    def grid(self, values: torch.Tensor) -> torch.Tensor:
        """(D, H, W)."""
        return values.permute(self.axes).contiguous()
