"""Features whose intermediate volumes are computed again for the gradient, instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_KEPT_VOXELS = 2**20  # of an image up to which all is kept: recomputing takes a third longer


def features_of_both(
    features: nn.Module, fixed_image: torch.Tensor, moving_image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of two images (1, 1, D, H, W), one after the other, as the published code trains.

    Batch normalisation thus sees one image at a time. For large images only the features are kept for the gradient.
    """
    return _features(features, fixed_image), _features(features, moving_image)


def _features(features: nn.Module, image: torch.Tensor) -> torch.Tensor:
    trained = any(parameter.requires_grad for parameter in features.parameters())
    if not (torch.is_grad_enabled() and trained) or image.numel() <= _KEPT_VOXELS:
        found: torch.Tensor = features(image)
        return found

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), statistics_kept(features)

    again: torch.Tensor = checkpoint(features, image, use_reentrant=False, context_fn=contexts)
    return again


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """While an image is seen for the second time, batch normalisation does not count it again.

    Its running statistics move by nothing; to leave them out would save other tensors than the first time.
    """
    counting = [m for m in module.modules() if isinstance(m, nn.BatchNorm3d) and m.track_running_stats]
    before = [(m.momentum, m.num_batches_tracked) for m in counting]
    for layer in counting:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, seen) in zip(counting, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, seen
