"""The preset under which `pddnet register` runs a trained pdd-net as it was trained."""

from __future__ import annotations

import json
from pathlib import Path

from pddnet.config import load_preset
from pddnet.learning.grid import TrainingGrid
from pddnet.learning.pdd_net import TrainablePddNet
from pddnet.learning.trainable import TrainableRegistration

PRESET = "preset.toml"
_INSTANCE_ITERATIONS = 50


def write_preset(
    folder: Path, model: TrainableRegistration, grid: TrainingGrid, weights: str, description: str
) -> Path | None:
    """Write `preset.toml` for weights in the same folder; None for a registration that no preset can run."""
    if not isinstance(model, TrainablePddNet) or not model.settings.mean_field:
        return None
    settings, intensity = model.settings, grid.intensity
    lines = [
        f"description = {json.dumps(description)}",
        f"grid_size = {list(grid.size)}",
        f"spacing_mm = {grid.spacing_mm}",
        'global_stage = "off"',
        "unfold = false",
        f"weights = {json.dumps(weights)}",
        "",
        "[intensity]",
        *(f"{name} = {json.dumps(value)}" for name, value in vars(intensity).items()),
    ]
    for level in settings.levels:
        lines += [
            "",
            "[[levels]]",
            f"control_points = {list(settings.control_points)}",
            f"labels = {list(settings.labels)}",
            f"reach = {list(level.reach)}",
            f"instance_iterations = {_INSTANCE_ITERATIONS}",
        ]
    path = folder / PRESET
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    load_preset(path)  # what was written is a preset
    return path
