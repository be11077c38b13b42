"""Where a training stands: all that the next iteration depends on, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pddnet.learning.trainable import TrainableRegistration
from pddnet.published_weights import CheckpointError
from pddnet.trained_weights import check_state, read_content, state_of, write_whole

STATE = "state.pt"
_FORMAT, _VERSION = "pddnet-training", 1


@dataclass
class Standing:
    """What the trainer counts.

    Args:
        iteration: how many are done.
        best: the best score so far.
        best_iteration: after which iteration it was reached.
        without_better: validations since then.
        seconds: of computing so far.
        stopped: why the training ended before its last iteration; "" if it did not.
    """

    iteration: int = 0
    best: float = float("-inf")
    best_iteration: int = 0
    without_better: int = 0
    seconds: float = 0.0
    stopped: str = ""


def save_state(
    folder: Path,
    fingerprint: str,
    standing: Standing,
    model: TrainableRegistration,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Write `state.pt`, whole or not at all.

    Args:
        fingerprint: of the configuration and the data; `load_state` compares it.
    """
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": fingerprint,
        "standing": vars(standing).copy(),
        "model": state_of(model),
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    write_whole(folder / STATE, content)


def load_state(
    folder: Path,
    fingerprint: str,
    model: TrainableRegistration,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Standing:
    """Bring everything back to where `save_state` found it.

    Raises:
        CheckpointError: the file cannot be read, or is of another training.
    """
    path = folder / STATE
    content: dict[str, Any] = read_content(path)
    if content.get("format") != _FORMAT or content.get("version") != _VERSION:
        raise CheckpointError(f"{path} is not the state of a training; start anew in another folder")
    if content["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{path} belongs to a training with another configuration or other data; restore both, or start anew in "
            "another folder"
        )
    check_state(path, content["model"], state_of(model))
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    generator.set_state(content["generator"])
    torch.set_rng_state(content["random"])
    if content["random_cuda"] and torch.cuda.device_count() == len(content["random_cuda"]):
        torch.cuda.set_rng_state_all(content["random_cuda"])
    return Standing(**content["standing"])
