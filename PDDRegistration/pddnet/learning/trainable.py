"""What can be trained to register: a pair on one grid goes in, weighted losses or a displacement come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn


@dataclass(frozen=True)
class TrainingPair:
    """Two scans on one grid; see `TrainingGrid`.

    Args:
        fixed_image, moving_image: (1, 1, D, H, W), scaled intensities.
        fixed_one_hot, moving_one_hot: (1, N, D, H, W), background first; None where a scan has no labels.
        class_weights: (N,), see `losses.class_weights`; None without labels.
    """

    fixed_image: torch.Tensor
    moving_image: torch.Tensor
    fixed_one_hot: torch.Tensor | None = None
    moving_one_hot: torch.Tensor | None = None
    class_weights: torch.Tensor | None = None


class TrainableRegistration(nn.Module, ABC):
    """A registration with parameters.

    `registry.py` knows the subclasses by `name`; a checkpoint keeps `config()` beside the parameters, so that
    `from_config` can make the module anew.
    """

    name: ClassVar[str]
    needs_labels: bool = True

    @abstractmethod
    def losses(self, pair: TrainingPair) -> dict[str, torch.Tensor]:
        """The weighted terms of a pair by name, scalars; their sum is minimised.

        Raises:
            InputError: the pair lacks the labels that a term needs.
        """

    @abstractmethod
    def displacement(self, fixed_image: torch.Tensor, moving_image: torch.Tensor) -> torch.Tensor:
        """Displacement of images (1, 1, D, H, W), without gradients and as in evaluation, whatever the mode.

        Returns:
            (1, 3, D, H, W), channels (x, y, z), fixed -> moving, normalised: 2 from the centre of the first to the
            centre of the last voxel (align_corners=True).
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All settings, as JSON can hold them."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A new module, untrained, of these settings; those left out take their defaults.

        Raises:
            InputError: unknown settings or values that cannot be used.
        """


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode for a while; every part is in its own mode again afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
