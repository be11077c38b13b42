"""A transform that is followed point by point, whatever it is: the slow way of all fast ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pddnet.warp import SpatialTransform


@dataclass(frozen=True)
class Pointwise:
    """Nothing is known of it but where it takes points."""

    transform: SpatialTransform

    def apply(self, points_lps: torch.Tensor) -> torch.Tensor:
        """Points (..., 3), mm LPS, fixed -> moving."""
        return self.transform.apply(points_lps)
