"""Registers pairs with presets made by other scripts, and judges each result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from canvas import MADE_UP_SPACING, Judgement, Pair, abdomens, judged, made_up_patients

import pddnet
from pddnet.config import Preset

MADE_UP = ((6, 5), (12, 11))


def pairs(data: Path) -> dict[str, Pair]:
    """Two pairs of synthetic patients and the real abdomens both ways, by name."""
    *real, _ = abdomens(data)
    return {pair.name: pair for pair in (*(made_up_patients(seeds) for seeds in MADE_UP), *real)}


def run(pair: Pair, preset: Preset) -> Judgement:
    """One registration; synthetic patients on a working grid as coarse as they were made, which saves time."""
    if pair.fixed.scan.geometry.spacing[0] == MADE_UP_SPACING:
        preset = replace(preset, spacing_mm=MADE_UP_SPACING)
    result = pddnet.register(pair.fixed.scan, pair.moving.scan, preset=preset)
    found = judged(pair, result.displacement)
    print(f"{preset.name}: {pair.name}: Dice {found.mean_dice:.3f} in {result.seconds:.0f} s", flush=True)
    return found


def cells_of(found: dict[str, Judgement]) -> list[str]:
    """Dice of each pair, their mean, and the mean regularity."""
    values = list(found.values())
    mean = [float(np.mean([getattr(v, name) for v in values])) for name in ("mean_dice", "log_jacobian_std")]
    folding = float(np.mean([v.folding_percent for v in values]))
    return [*(f"{v.mean_dice:.3f}" for v in values), f"{mean[0]:.3f}", f"{mean[1]:.2f}", f"{folding:.4f}"]


def head(first: str, names: list[str]) -> list[str]:
    """The head over `cells_of`."""
    return [first, *names, "mean Dice", "std(log J)", "folding %"]
