"""How the reported standard deviation compares with the true error, on pairs of known truth. Writes docs/results.md.

    python Testing/results/uncertainty.py [--data ../shared/data] [--seeds 2]

Also draws docs/uncertainty.png: the error found (root mean square) against the standard deviation reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from known_truth import KnownPair, recipes
from report import machine, parser_of, table, write_section

import pddnet
from pddnet.config import load_preset
from pddnet.geometry import Frame
from pddnet.point_samples import inside
from pddnet.points import transform_points_torch
from pddnet.preprocessing import Scaling, resolved
from pddnet.warp import sampled_on

Numbers = npt.NDArray[np.float64]

POINTS = 40_000
BINS = 10
HEAD = ("pair", "preset", "mean displacement, mm", "mean error, mm", "RMS error", "RMS std", "Spearman", "s")


@dataclass(frozen=True)
class Found:
    """Reported standard deviation and true error, mm, at the same random points inside the body."""

    name: str
    preset: str
    std: Numbers
    error: Numbers
    displacement: float
    seconds: float


def ranks(values: Numbers) -> Numbers:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[inverse]


def spearman(a: Numbers, b: Numbers) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def reliability(std: Numbers, error: Numbers, bins: int) -> tuple[Numbers, Numbers]:
    """Root mean squares of the reported and the true in bins of equally many points, by what was reported."""
    parts = np.array_split(np.argsort(std, kind="stable"), bins)
    means = [(np.mean(std[part] ** 2), np.mean(error[part] ** 2)) for part in parts]
    reported, true = np.sqrt(np.array(means)).T
    return reported, true


def register(pair: KnownPair) -> Found:
    """Run one pair and compare at random voxels of the fixed body whose true position the moving scan shows."""
    result = pddnet.register(pair.fixed, pair.moving, preset=pair.preset)
    grid = pair.fixed.geometry
    scaling = Scaling.of(pair.fixed, resolved(load_preset(pair.preset).intensity, pair.fixed, pair.moving))
    index = (
        (scaling.apply(pair.fixed.data) > scaling.foreground).nonzero().flip(1).double()
    )  # (N, 3) as x, y, z
    chosen = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:POINTS]
    points = transform_points_torch(grid.matrix(Frame.INDEX, Frame.LPS), index[chosen])
    truth = pair.truth.apply(points)
    moving = pair.moving.geometry
    seen = inside(transform_points_torch(moving.matrix(Frame.LPS, Frame.INDEX), truth), moving.shape)
    error = (result.displacement.apply(points) - truth).norm(dim=1)
    std = sampled_on(result.uncertainty.std_mm, grid).data[tuple(index[chosen].long().flip(1).T)].double()
    found = Found(
        pair.name,
        pair.preset,
        std[seen].numpy(),
        error[seen].numpy(),
        float((truth - points).norm(dim=1).mean()),
        result.seconds,
    )
    print(
        f"{pair.name} {pair.preset}: error {found.error.mean():.2f} mm, Spearman {spearman(found.std, found.error):.2f}"
    )
    return found


def joined(found: Sequence[Found]) -> Found:
    """Several seeds of one pair as one."""
    first = found[0]
    std, error = (np.concatenate([getattr(f, name) for f in found]) for name in ("std", "error"))
    displacement, seconds = (
        float(np.mean([getattr(f, name) for f in found])) for name in ("displacement", "seconds")
    )
    return Found(first.name, first.preset, std, error, displacement, seconds)


def row_of(found: Found) -> list[str]:
    """The cells of `HEAD`."""
    rms = [float(np.sqrt(np.mean(values**2))) for values in (found.error, found.std)]
    numbers = [f"{found.displacement:.2f}", f"{found.error.mean():.2f}", *(f"{value:.2f}" for value in rms)]
    return [
        found.name,
        found.preset,
        *numbers,
        f"{spearman(found.std, found.error):.2f}",
        f"{found.seconds:.1f}",
    ]


def draw(found: Sequence[Found], path: str) -> None:
    """The reliability diagram."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5.5), layout="constrained")
    for one in found:
        axes.plot(
            *reliability(one.std, one.error, BINS),
            marker="o",
            markersize=3,
            label=f"{one.name}, {one.preset}",
        )
    axes.plot([0.1, 20], [0.1, 20], color="grey", linewidth=1, linestyle="--")
    axes.set(xscale="log", yscale="log", xlim=(0.2, 15), ylim=(0.2, 15))
    axes.set(xlabel="standard deviation reported, mm", ylabel="error found, root mean square, mm")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run all pairs and write table and diagram."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=2, help="deformations of each scan")
    arguments = parser.parse_args()
    every = [
        joined([register(recipe.pair(seed)) for seed in range(1, arguments.seeds + 1)])
        for recipe in recipes(arguments.data)
    ]
    draw(every, str(arguments.out.parent / "uncertainty.png"))
    pooled = spearman(*(np.concatenate([getattr(f, name) for f in every]) for name in ("std", "error")))
    lines = [f"Deformations of each scan: {arguments.seeds}; {machine()}.", ""]
    lines += [
        *table(HEAD, [row_of(one) for one in every]),
        "",
        f"Over all points of all pairs: Spearman {pooled:.2f}.",
    ]
    lines += ["", "![Reliability diagram: error found against standard deviation reported](uncertainty.png)"]
    write_section(arguments.out, "uncertainty", lines)


if __name__ == "__main__":
    main()
