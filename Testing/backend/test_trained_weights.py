"""Trained registrations on disk: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pddnet.checkpoint import load_checkpoint, load_features, load_network
from pddnet.learning import registry
from pddnet.network import Level
from pddnet.published_weights import CheckpointError
from pddnet.trained_weights import TrainedWeights, load_trained, save_trained, state_of

SMALL = {
    "control_points": [3, 4, 3],
    "labels": [3, 3, 3],
    "obelisk": {"channels": 3, "offsets": 4, "hidden": 4},
}
GRID = {"size": [12, 12, 12], "spacing_mm": 1.0}


def weights(**settings: Any) -> TrainedWeights:
    model = registry.create("pdd-net", {**SMALL, **settings})
    return TrainedWeights("pdd-net", model.config(), state_of(model), "CC0", "two phantoms", GRID)


def saved(folder: Path, **settings: Any) -> Path:
    path = folder / "best.pt"
    save_trained(path, weights(**settings))
    return path


def altered(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = saved(folder)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_a_registration_read_back_computes_what_the_saved_one_did(tmp_path: Path) -> None:
    before = weights()
    path = tmp_path / "best.pt"
    save_trained(path, before)
    after = load_trained(path)
    assert (after.kind, after.licence, after.training_note, after.grid) == (
        "pdd-net",
        "CC0",
        "two phantoms",
        GRID,
    )
    images = torch.rand(2, 1, 1, 12, 12, 12)
    found, expected = (registry.restore(w).displacement(*images) for w in (after, before))
    assert torch.equal(found, expected)
    assert not registry.restore(after).training


@pytest.mark.parametrize("features", ["obelisk", "mind-ssc"])
def test_the_network_of_a_preset_is_the_one_that_was_trained(tmp_path: Path, features: str) -> None:
    path = saved(tmp_path, features=features)
    model, network = registry.restore(load_trained(path)), load_network(path)
    images = torch.rand(2, 1, 1, 12, 14, 16)
    level = Level((3, 4, 3), (3, 3, 3), (0.4, 0.4, 0.4))
    with torch.no_grad():
        found = network(*images, level).expected_displacement
        expected = model.network(*images, level).expected_displacement  # type: ignore[operator, union-attr]
    assert torch.equal(found, expected)
    assert not network.training


def test_only_learned_features_can_be_had_alone(tmp_path: Path) -> None:
    assert load_features(saved(tmp_path)).config.channels == 3
    with pytest.raises(CheckpointError, match="features made by hand"):
        load_features(saved(tmp_path, features="mind-ssc"))


def test_the_hash_covers_kind_settings_grid_and_tensors_but_not_the_notes() -> None:
    one = weights()
    others = [
        replace(one, kind="other"),
        replace(one, config={**one.config, "reduction": "mean"}),
        replace(one, grid={**GRID, "spacing_mm": 2.0}),
        replace(one, state={**one.state, "network.regularisation.sharpness": torch.tensor(2.0)}),
    ]
    assert len({w.sha256 for w in (one, *others)}) == 5
    assert replace(one, licence="MIT", training_note="").sha256 == one.sha256


def set_key(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_key("version", 3), "version 3; 'pddnet-checkpoint', version 2 is needed"),
        (set_key("format", "other"), "has format 'other'"),
        (set_key("sha256", "0" * 64), "SHA-256 it was saved with"),
        (lambda c: c["state"]["network.regularisation.sharpness"].fill_(3.0), "SHA-256 it was saved with"),
        (lambda c: c["config"].update(reduction="mean"), "SHA-256 it was saved with"),
        (lambda c: c.pop("grid"), "has the entries"),
        (set_key("kind", 3), "entries of other types"),
        (set_key("state", {"a": 1}), "something else than tensors"),
        (lambda c: c["config"].update(reduction=torch.ones(1)), "settings that are no JSON"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_trained(altered(tmp_path, change))


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    wrong = replace(weights(), config={**SMALL, "obelisk": {"channels": 4, "offsets": 4, "hidden": 4}})
    save_trained(tmp_path / "w.pt", wrong)
    with pytest.raises(CheckpointError, match=r"\(3,\) for|\(3, 4, 1, 1, 1\) for"):
        registry.restore(load_trained(tmp_path / "w.pt"))


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_trained(path, replace(weights(), kind="voxelmorph"))
    with pytest.raises(ValueError, match=r"'voxelmorph' cannot be trained; choose one of .*pdd-net"):
        registry.restore(load_trained(path))
    with pytest.raises(CheckpointError, match="holds a trained voxelmorph; weights of a pdd-net are needed"):
        load_network(path)


def test_the_first_version_is_told_from_the_second(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="version 2; this pddnet reads"):
        load_checkpoint(saved(tmp_path))
