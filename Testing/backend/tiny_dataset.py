"""A data set for tests of training: made-up scans with two organs, each on an oblique grid of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.awkward import random_geometry
from pddnet.geometry import Frame, ImageGeometry, transform_points
from pddnet.interop.simpleitk import write_label_map, write_volume
from pddnet.volume import LabelMap, Volume

LABELS = {"3": "left lobe", "7": "right lobe"}
CONFIG: dict[str, Any] = {
    "grid": {"size": [16, 18, 14], "spacing_mm": 2.5},
    "settings": {
        "control_points": [4, 5, 4],
        "labels": [5, 5, 5],
        "reach": [0.3, 0.3, 0.3],
        "obelisk": {"channels": 4, "offsets": 4, "hidden": 8},
    },
    "iterations": 6,
    "save_every": 2,
    "validation": {"every": 3, "pairs": 2},
    "tensorboard": False,
}


def scan(seed: int) -> tuple[Volume, LabelMap]:
    """A bright body with a brighter and a darker lobe around the centre of an awkward grid."""
    rng = np.random.default_rng(seed)
    grid = random_geometry(rng, 14, 22)
    grid = ImageGeometry(grid.size, tuple(rng.uniform(1.5, 2.2, 3)), grid.origin, grid.direction)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.size], indexing="ij"), -1)[..., :3]
    points = transform_points(grid.matrix(Frame.INDEX, Frame.LPS), index.transpose(2, 1, 0, 3)) - grid.centre
    stretch, shift = rng.uniform(0.85, 1.2, 3), rng.normal(0, 1.5, 3)
    local = (points - shift) / stretch
    body = (local / np.array([16, 18, 16])) ** 2
    left = ((local - np.array([6, 2, 0])) / np.array([5, 7, 8])) ** 2
    right = ((local - np.array([-6, -3, 1])) / np.array([5, 8, 6])) ** 2
    values, codes = np.full(grid.shape, -800.0), np.zeros(grid.shape, np.int32)
    values[body.sum(-1) < 1] = 40
    for shape, value, code in ((left, 160, 3), (right, -90, 7)):
        values[shape.sum(-1) < 1], codes[shape.sum(-1) < 1] = value, code
    values += rng.normal(0, 8, grid.shape)
    return Volume(torch.from_numpy(values).float(), grid), LabelMap(torch.from_numpy(codes), grid)


def write_dataset(folder: Path, cases: int = 4, unlabelled: int = 0, **more: Any) -> Path:
    """Scans in .mha files and `dataset.json`, whose path comes back; the last `unlabelled` cases have no labels."""
    entries = []
    for number in range(cases):
        volume, labels = scan(number)
        write_volume(folder / f"scan-{number}.mha", volume)
        entry = {"name": f"case {number}", "image": f"scan-{number}.mha"}
        if number < cases - unlabelled:
            write_label_map(folder / f"labels-{number}.mha", labels)
            entry["labels"] = f"labels-{number}.mha"
        entries.append(entry)
    table = {"name": "tiny", "licence": "CC0", "labels": LABELS, "cases": entries, **more}
    path = folder / "dataset.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def as_toml(table: dict[str, Any]) -> str:
    """A table of numbers, texts, lists and tables as TOML."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    inline = {k: v for k, v in table.items() if isinstance(v, dict)}
    return "\n".join([f"{k} = {_literal(v)}" for k, v in {**plain, **inline}.items()]) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_literal(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)
