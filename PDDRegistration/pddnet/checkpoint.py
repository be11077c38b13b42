"""Weights on disk: our own checkpoints, and the published weights.

A checkpoint of the first version holds a `PddNet` alone; `trained_weights.py` has the second version.
A checkpoint says what it is: format, version, configuration, a hash over configuration and tensors, a licence
and a note on its training. Files are only ever read with `weights_only=True`, so that a file cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pddnet.correlation import Reduction
from pddnet.errors import InputError
from pddnet.features.mind_features import MindFeatures
from pddnet.features.obelisk import Obelisk, ObeliskConfig, infer_config
from pddnet.network import PddNet
from pddnet.published_weights import CheckpointError, fetch_weights, file_sha256, published_weights
from pddnet.regularisation import PUBLISHED_WEIGHTS
from pddnet.trained_weights import (
    FORMAT,
    TrainedWeights,
    check_state,
    read_content,
    state_of,
    trained_of,
    update_with_tensors,
    write_whole,
)
from pddnet.trained_weights import VERSION as TRAINED

VERSION = 1

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "load_checkpoint",
    "load_features",
    "load_network",
    "save_checkpoint",
]

_KEYS = {"format", "version", "config", "state", "sha256", "licence", "training_note"}


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what is known of it.

    Args:
        features: sizes of the feature network.
        reduction: of the dissimilarities, see `dissimilarity_volume`.
        state: every parameter and buffer of a `PddNet`, by name.
        licence: under which the weights may be used.
        training_note: data, settings and origin of the weights, for people to read.
    """

    features: ObeliskConfig
    reduction: Reduction
    state: Mapping[str, torch.Tensor]
    licence: str
    training_note: str = ""

    @classmethod
    def of(cls, network: PddNet, licence: str, training_note: str = "") -> Checkpoint:
        """What to keep of a network; its tensors are copied to the CPU."""
        if not isinstance(network.features, Obelisk):
            raise InputError(
                "this network has features made by hand; save what was trained with save_trained"
            )
        return cls(network.features.config, network.reduction, state_of(network), licence, training_note)

    def network(self) -> PddNet:
        """The network, on the CPU, in eval mode."""
        network = PddNet(self.features, reduction=self.reduction)
        network.load_state_dict(dict(self.state))
        return network.eval()

    @property
    def sha256(self) -> str:
        """Over the configuration and every tensor's name, type, shape and values; not over the notes."""
        digest = hashlib.sha256(json.dumps(self._config(), sort_keys=True).encode())
        update_with_tensors(digest, self.state)
        return digest.hexdigest()

    def _config(self) -> dict[str, Any]:
        return {"features": asdict(self.features), "reduction": self.reduction}


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file appears whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": checkpoint._config(),
        "state": dict(checkpoint.state),
        "sha256": checkpoint.sha256,
        "licence": checkpoint.licence,
        "training_note": checkpoint.training_note,
    }
    write_whole(path, content)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and check all it says of itself.

    Raises:
        CheckpointError: no such file; damaged; another format or version; a hash or shapes that do not fit.
    """
    content = read_content(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no checkpoint of ours (format {content.get('format')!r}); "
            "one written by save_checkpoint is needed; for published weights call load_network"
        )
    return _checked(path, content)


def load_network(path_or_name: str | os.PathLike[str], *, expected_sha256: str | None = None) -> PddNet:
    """A network from our checkpoints, or published feature weights with the published regularisation.

    Args:
        path_or_name: a file, or a name of `published_weights`, which is fetched if it is not here.
        expected_sha256: of the file; a file with another one is refused before it is read.

    Returns:
        The network, on the CPU, in eval mode.

    Raises:
        CheckpointError: the file is neither, or not the expected one.
    """
    known = published_weights()
    path = fetch_weights(str(path_or_name)) if str(path_or_name) in known else Path(path_or_name)
    if expected_sha256 is not None and file_sha256(path) != expected_sha256.lower():
        raise CheckpointError(f"{path} does not have the SHA-256 {expected_sha256}; another file is needed")
    content = read_content(path)
    if content.get("version") == TRAINED:
        return _trained_network(path, trained_of(path, content))
    if "format" in content:
        return _checked(path, content).network()
    return PddNet(_published_features(path, content), PUBLISHED_WEIGHTS).eval()


def load_features(path_or_name: str | os.PathLike[str], *, expected_sha256: str | None = None) -> Obelisk:
    """The feature network alone; arguments and errors as for `load_network`."""
    features = load_network(path_or_name, expected_sha256=expected_sha256).features
    if not isinstance(features, Obelisk):
        raise CheckpointError(
            f"{path_or_name} was trained with features made by hand; name weights of learned features"
        )
    return features


def _checked(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint in a file's content, every statement of it checked."""
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has format {content.get('format')!r}, version {content.get('version')!r}; this pddnet "
            f"reads {FORMAT!r}, version {VERSION}: use the pddnet that wrote it, or save it again"
        )
    if content.keys() != _KEYS:
        raise CheckpointError(f"{path} has the entries {sorted(content)}; {sorted(_KEYS)} are needed")
    state, config = content["state"], content["config"]
    try:
        features = ObeliskConfig(**config["features"])
        checkpoint = Checkpoint(
            features, config["reduction"], state, content["licence"], content["training_note"]
        )
        network = _empty_network(checkpoint)
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} has a configuration that cannot be used: {error}") from error
    check_state(path, state, network.state_dict())
    if checkpoint.sha256 != content["sha256"]:
        raise CheckpointError(
            f"{path} does not have the SHA-256 it was saved with: it was damaged or changed; copy it again"
        )
    return checkpoint


def _empty_network(checkpoint: Checkpoint) -> PddNet:
    if checkpoint.reduction not in ("sum", "mean"):
        raise InputError(f"reduction is {checkpoint.reduction!r}; 'sum' or 'mean' is needed")
    with torch.device("meta"):
        return PddNet(checkpoint.features, reduction=checkpoint.reduction)


def _trained_network(path: str | os.PathLike[str], weights: TrainedWeights) -> PddNet:
    """The network inside a pdd-net that was trained; its settings are those of `learning.pdd_net`."""
    if weights.kind != "pdd-net":
        raise CheckpointError(
            f"{path} holds a trained {weights.kind}; weights of a pdd-net are needed where a preset's levels use them"
        )
    config = weights.config
    try:
        learned = config["features"] == "obelisk"
        features = ObeliskConfig(**config["obelisk"]) if learned else MindFeatures()
        network = PddNet(features, reduction=config["reduction"], mean_field=config["mean_field"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} has a configuration that cannot be used: {error}") from error
    inside = {name.removeprefix("network."): tensor for name, tensor in weights.state.items()}
    check_state(path, inside, network.state_dict())
    network.load_state_dict(inside)
    return network.eval()


def _published_features(path: str | os.PathLike[str], state: Mapping[str, Any]) -> Obelisk:
    try:
        features = Obelisk(infer_config(state, axis_order="xyz"))
    except InputError as error:
        raise CheckpointError(
            f"{path} holds neither a checkpoint of ours nor published feature weights: {error}"
        ) from error
    features.load_state_dict(dict(state))
    return features
