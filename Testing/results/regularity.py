"""Dice against regularity as the one parameter `smoothness` is turned. Writes docs/results.md and docs/regularity.png.

python Testing/results/regularity.py [--data ../shared/data] [--preset abdomen-ct]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from canvas import Judgement
from report import machine, parser_of, table, write_section
from variants import cells_of, head, pairs, run

from pddnet.config import load_preset, overridden

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

Curves = Mapping[float, Mapping[str, Judgement]]


def draw(curves: Curves, path: Path) -> None:
    """Dice over the standard deviation of log Jacobian, a line for each pair and a point for each factor."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for name in next(iter(curves.values())):
        found = [curve[name] for curve in curves.values()]
        across, up = [j.log_jacobian_std for j in found], [j.mean_dice for j in found]
        axes.plot(across, up, marker="o", label=name)
        for factor, x, y in zip(curves, across, up, strict=True):
            axes.annotate(f"{factor:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xlabel="standard deviation of log Jacobian inside the body", ylabel="mean Dice")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run every factor on every pair."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--preset", default="abdomen-ct")
    arguments = parser.parse_args()
    preset, over = load_preset(arguments.preset), pairs(arguments.data)
    curves = {
        factor: {name: run(pair, overridden(preset, smoothness=factor)) for name, pair in over.items()}
        for factor in FACTORS
    }
    draw(curves, arguments.out.parent / "regularity.png")
    rows = [[f"{factor:g}", *cells_of(dict(found))] for factor, found in curves.items()]
    picture = "![Mean Dice against the standard deviation of log Jacobian, by smoothness](regularity.png)"
    lines = [
        f"Preset `{arguments.preset}`; {machine()}.",
        "",
        *table(head("smoothness", list(over)), rows),
        "",
        picture,
    ]
    write_section(arguments.out, "regularity", lines)


if __name__ == "__main__":
    main()
