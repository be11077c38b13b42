"""Draws PDDRegistration.png, the icon of the extension and of its module: the displacement labels around one control
point, larger where more probable, and the expected displacement as an arrow, over the grid it bends.

Needs matplotlib; the picture is written beside this file and into the module's folder.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch

PIXELS = 128
BACKGROUND, GRID, LABELS, ARROW = "#14263d", "#2f5580", "#7fd4e8", "#ffa033"
CONTROL_POINT, EXPECTED = np.array([0.0, 0.0]), np.array([0.52, 0.42])


def bent(points: np.ndarray) -> np.ndarray:
    """The points (..., 2), pulled along the arrow, most at its middle."""
    middle, pull = (CONTROL_POINT + EXPECTED) / 2, (EXPECTED - CONTROL_POINT) * 0.35
    return points + np.exp(-np.sum((points - middle) ** 2, axis=-1, keepdims=True) / 0.4) * pull


def draw(path: Path) -> None:
    figure = plt.figure(figsize=(1, 1), dpi=PIXELS)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1, 1), ylim=(-1, 1))
    axes.axis("off")
    tile = FancyBboxPatch(
        (-0.84, -0.84), 1.68, 1.68, boxstyle="round,pad=0.14", facecolor=BACKGROUND, linewidth=0
    )
    axes.add_patch(tile)
    along = np.linspace(-0.98, 0.98, 60)
    for level in np.linspace(-0.7, 0.7, 4):
        across = np.full_like(along, level)
        axes.plot(*bent(np.stack([along, across], -1)).T, color=GRID, linewidth=1.2, clip_path=tile)
        axes.plot(*bent(np.stack([across, along], -1)).T, color=GRID, linewidth=1.2, clip_path=tile)
    steps = 0.35 * np.arange(-2, 3)
    labels = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    probability = np.exp(-np.sum((labels - EXPECTED) ** 2, axis=-1) / 0.2)
    axes.scatter(*labels.T, s=10 + 85 * probability, color=LABELS, linewidths=0, zorder=3)
    arrow = {
        "arrowstyle": "-|>,head_width=.34,head_length=.5",
        "color": ARROW,
        "lw": 3.4,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", EXPECTED, CONTROL_POINT, zorder=4, arrowprops=arrow)
    axes.scatter(*CONTROL_POINT, s=60, color=ARROW, linewidths=0, zorder=5)
    figure.savefig(path, transparent=True, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    for folder in (root / "Resources" / "Icons", root / "PDDRegistration" / "Resources" / "Icons"):
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder / "PDDRegistration.png")
