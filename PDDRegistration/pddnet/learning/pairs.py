"""Training pairs: the scans of a data set on the training grid, two at a time, augmented."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from pddnet.data import Dataset
from pddnet.errors import InputError
from pddnet.learning.augmentation import moved, recoloured
from pddnet.learning.grid import TrainingGrid
from pddnet.learning.settings import Augmentation
from pddnet.learning.trainable import TrainingPair
from pddnet.losses import class_weights, one_hot
from pddnet.volume import LabelMap

_SCANS_KEPT = 256
_VOXELS_KEPT = 2**28  # of all scans that are kept

Name = tuple[str, str]


class GridScans:
    """Scans and labels of a data set on the training grid, prepared when they are asked for; the last ones are kept.

    Args:
        dataset: where they come from. Its label codes become the classes 1, 2, ... in rising order.
        grid: what they are brought onto.
    """

    def __init__(self, dataset: Dataset, grid: TrainingGrid) -> None:
        self.dataset, self.grid = dataset, grid
        self.codes = tuple(sorted(dataset.label_names))
        count = min(_SCANS_KEPT, max(4, _VOXELS_KEPT // (grid.size[0] * grid.size[1] * grid.size[2])))
        self.image = lru_cache(count)(self._image)
        self.classes = lru_cache(count)(self._classes)

    @property
    def class_count(self) -> int:
        """How many classes there are, background included."""
        return len(self.codes) + 1

    def has_labels(self, name: str) -> bool:
        """Whether a case has a label map."""
        return self.dataset.case(name).labels is not None

    def _image(self, name: str) -> torch.Tensor:
        return self.grid.image(self.dataset.image(name), f"training case '{name}', the")

    def _classes(self, name: str) -> torch.Tensor:
        return classes_of(self.grid, self.dataset.labels(name), self.codes)


class PairSource:
    """Draws pairs of different cases.

    Args:
        scans: see `GridScans`.
        names: the cases; at least two.
        with_labels: whether both scans of a pair need labels.
        augmentation: what is done to the scans each time.
        device: where the pairs are needed.

    Raises:
        InputError: fewer than two cases, or fewer than two with labels where labels are needed.
    """

    def __init__(
        self,
        scans: GridScans,
        names: Sequence[str],
        with_labels: bool,
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        usable = [name for name in names if scans.has_labels(name)] if with_labels else list(names)
        if len(set(usable)) < 2:
            kind = "labelled " if with_labels else ""
            raise InputError(
                f"the training has {len(set(usable))} {kind}case(s) of the {len(names)} it may use; 2 are needed for a "
                f"pair: add label maps, name more cases, or set fewer aside for validation"
            )
        self._scans, self.names, self._augmentation, self._device = scans, tuple(usable), augmentation, device
        self._labelled = all(scans.has_labels(name) for name in usable)
        self.class_weights = self._weights() if self._labelled else None

    def draw(self, generator: torch.Generator) -> TrainingPair:
        """A random pair, augmented: the fixed scan is moved, both are recoloured."""
        first, second = torch.randperm(len(self.names), generator=generator)[:2].tolist()
        fixed, fixed_classes = self._scan(self.names[first])
        moving, moving_classes = self._scan(self.names[second])
        fixed, fixed_classes = moved(fixed, fixed_classes, self._augmentation.affine, generator)
        fixed, moving = (recoloured(image, self._augmentation, generator) for image in (fixed, moving))
        return self._pair(fixed, moving, fixed_classes, moving_classes)

    def pair(self, fixed: str, moving: str) -> TrainingPair:
        """Two cases as they are."""
        (a, a_classes), (b, b_classes) = self._scan(fixed), self._scan(moving)
        return self._pair(a, b, a_classes, b_classes)

    def some_pairs(self, count: int) -> list[Name]:
        """Up to `count` pairs of names, fixed and moving, the same each time and as different as possible."""
        n = len(self.names)
        ordered = [(self.names[i], self.names[(i + step) % n]) for step in range(1, n) for i in range(n)]
        return ordered[:count]

    def _scan(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        classes = self._scans.classes(name).to(self._device) if self._labelled else None
        return self._scans.image(name).to(self._device), classes

    def _pair(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        fixed_classes: torch.Tensor | None,
        moving_classes: torch.Tensor | None,
    ) -> TrainingPair:
        if fixed_classes is None or moving_classes is None:
            return TrainingPair(fixed, moving)
        hot = [one_hot(classes, self._scans.class_count) for classes in (fixed_classes, moving_classes)]
        return TrainingPair(fixed, moving, hot[0], hot[1], self.class_weights)

    def _weights(self) -> torch.Tensor:
        maps = (self._scans.classes(name) for name in self.names)
        return class_weights(maps, self._scans.class_count).to(self._device)


def classes_of(grid: TrainingGrid, labels: LabelMap, codes: Sequence[int]) -> torch.Tensor:
    """A label map on the grid, its codes as 1, 2, ... in the order of `codes`, everything else 0: (D, H, W), int64."""
    on_grid = grid.labels(labels)
    classes = torch.zeros(on_grid.shape, dtype=torch.int64)
    for number, code in enumerate(codes, 1):
        classes[on_grid == code] = number
    return classes
