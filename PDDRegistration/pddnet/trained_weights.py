"""A trained registration on disk: which kind it is, its settings, its parameters and where they came from.

The second version of our checkpoint; `checkpoint.py` reads the first. Files are only ever read with
`weights_only=True`, so that a file cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pddnet.published_weights import CheckpointError

FORMAT = "pddnet-checkpoint"
VERSION = 2

_KEYS = {"format", "version", "kind", "config", "grid", "state", "sha256", "licence", "training_note"}


@dataclass(frozen=True)
class TrainedWeights:
    """A trained registration and what is known of it.

    Args:
        kind: name under which the registry knows its class.
        config: its settings, as JSON can hold them.
        state: every parameter and buffer, by name, on the CPU.
        licence: under which the weights may be used.
        training_note: data, settings and origin of the weights, for people to read.
        grid: the grid of the training and its scaling of intensities, as JSON; empty where there was none.
    """

    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]
    licence: str
    training_note: str = ""
    grid: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Over the kind, the settings, the grid and every tensor's name, type, shape and values; not over the notes."""
        settings = {"kind": self.kind, "config": self.config, "grid": self.grid}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        update_with_tensors(digest, self.state)
        return digest.hexdigest()

    def load_into(self, model: nn.Module) -> None:
        """Give a module of the same settings these parameters.

        Raises:
            CheckpointError: the tensors are not those of the module.
        """
        check_state("the checkpoint", self.state, model.state_dict())
        model.load_state_dict(dict(self.state))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter and buffer of a module, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def save_trained(path: str | os.PathLike[str], weights: TrainedWeights) -> None:
    """Write a trained registration; the file appears whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": weights.kind,
        "config": dict(weights.config),
        "grid": dict(weights.grid),
        "state": dict(weights.state),
        "sha256": weights.sha256,
        "licence": weights.licence,
        "training_note": weights.training_note,
    }
    write_whole(path, content)


def load_trained(path: str | os.PathLike[str]) -> TrainedWeights:
    """Read a trained registration and check what it says of itself.

    Raises:
        CheckpointError: no such file; damaged; another format or version; a hash that does not fit.
    """
    return trained_of(path, read_content(path))


def trained_of(path: str | os.PathLike[str], content: Mapping[str, Any]) -> TrainedWeights:
    """The trained registration in a file's content; raises as `load_trained`."""
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has format {content.get('format')!r}, version {content.get('version')!r}; {FORMAT!r}, "
            f"version {VERSION} is needed: name a file that `pddnet train` wrote"
        )
    if content.keys() != _KEYS:
        raise CheckpointError(f"{path} has the entries {sorted(content)}; {sorted(_KEYS)} are needed")
    tables, state = (content["config"], content["grid"]), content["state"]
    texts = (content["kind"], content["licence"], content["training_note"])
    if not all(isinstance(table, Mapping) for table in (*tables, state)) or not all(
        isinstance(text, str) for text in texts
    ):
        raise CheckpointError(f"{path} has entries of other types than a checkpoint's; train it again")
    if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise CheckpointError(
            f"{path} holds something else than tensors among its parameters; train it again"
        )
    kind, licence, note = texts
    weights = TrainedWeights(kind, tables[0], state, licence, note, tables[1])
    if _sha256(path, weights) != content["sha256"]:
        raise CheckpointError(
            f"{path} does not have the SHA-256 it was saved with: it was damaged or changed; copy it again"
        )
    return weights


def read_content(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The table that a file of weights holds; raises CheckpointError where it holds none."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); a weights file is needed"
        ) from error
    except Exception as error:  # what a damaged file makes the unpickler raise is not documented
        raise CheckpointError(
            f"{path} is damaged or no weights file ({type(error).__name__}); copy or fetch it again"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}; a checkpoint or a state dict is needed"
        )
    return dict(content)


def write_whole(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """`torch.save`; the file appears whole or not at all."""
    target = Path(path)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def update_with_tensors(digest: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Add names, types, shapes and values of tensors to a hash, by name."""
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())


def check_state(path: str | os.PathLike[str], state: object, expected: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError unless `state` has the names, shapes and types of the expected tensors."""
    if not isinstance(state, Mapping) or state.keys() != expected.keys():
        raise CheckpointError(
            f"{path} does not hold the tensors of a network of its configuration; train it again"
        )
    for name, tensor in expected.items():
        found = state[name]
        if not isinstance(found, torch.Tensor) or found.shape != tensor.shape or found.dtype != tensor.dtype:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise CheckpointError(
                f"{path} has {shape} for {name}; {tensor.dtype} {tuple(tensor.shape)} is needed"
            )


def _sha256(path: str | os.PathLike[str], weights: TrainedWeights) -> str:
    try:
        return weights.sha256
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has settings that are no JSON ({error}); train it again") from error
