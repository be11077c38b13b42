"""A picture of one registered pair, made of numbers alone: fixed, warped and moving, with outlines of the labels."""

from __future__ import annotations

import torch

from pddnet.learning.trainable import TrainingPair
from pddnet.learning.validation import warped_classes
from pddnet.losses import warp_holding_border

_FIXED_COLOUR, _WARPED_COLOUR = (0.2, 0.9, 0.3), (1.0, 0.3, 0.1)
_LEAST_SIDE = 128  # pixels


@torch.no_grad()
def picture_of(pair: TrainingPair, displacement: torch.Tensor) -> torch.Tensor:
    """Fixed, warped and moving scan side by side in one axial plane: (3, height, width), 0 to 1.

    Outlines: the fixed labels in green on the fixed and the warped scan, the warped labels in orange on both.
    """
    warped = warp_holding_border(pair.moving_image, displacement)
    plane = _fullest_plane(pair)
    grey = [_grey(image[0, 0, plane]) for image in (pair.fixed_image, warped, pair.moving_image)]
    if pair.fixed_one_hot is not None and pair.moving_one_hot is not None:
        fixed = pair.fixed_one_hot.argmax(1)[0, plane]
        found = warped_classes(pair, displacement)[plane]
        for panel in grey[:2]:
            _draw(panel, fixed, _FIXED_COLOUR)
            _draw(panel, found, _WARPED_COLOUR)
        _draw(grey[2], pair.moving_one_hot.argmax(1)[0, plane], _WARPED_COLOUR)
    together = torch.cat(grey, 2).flip(1)  # anterior up
    times = max(1, -(-_LEAST_SIDE // min(together.shape[1:])))
    return together.repeat_interleave(times, 1).repeat_interleave(times, 2).cpu()


def _fullest_plane(pair: TrainingPair) -> int:
    """The plane with the most labelled voxels, or the middle one."""
    if pair.fixed_one_hot is None:
        return pair.fixed_image.shape[2] // 2
    return int(pair.fixed_one_hot[0, 1:].sum((0, 2, 3)).argmax())


def _grey(plane: torch.Tensor) -> torch.Tensor:
    low, high = plane.min(), plane.max()
    return ((plane - low) / (high - low).clamp(min=1e-6)).expand(3, *plane.shape).clone()


def _draw(panel: torch.Tensor, classes: torch.Tensor, colour: tuple[float, float, float]) -> None:
    """Colour the pixels of (3, H, W) whose class is not that of the next pixel."""
    edge = torch.zeros_like(classes, dtype=torch.bool)
    edge[:-1] |= classes[:-1] != classes[1:]
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    panel[:, edge] = torch.tensor(colour, device=panel.device)[:, None]
