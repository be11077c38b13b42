"""What `make bench` runs: measure, then write docs/benchmarks.md, its plots, and docs/benchmarks.json with all numbers.

    python Testing/benchmarks/run.py [--only layers register growth large] [--out docs] [--quick]

Without --only: layers, register and growth, in some ten minutes on two cores, most of them the naive layers. Sections
that are not measured stay as an earlier run left them in benchmarks.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names would hide others
    for source in ("PDDRegistration", "Testing"):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / source))

import torch

from benchmarks.growth_section import of_layers, peak_of_nothing, with_voxels
from benchmarks.layers_section import compare
from benchmarks.page import page
from benchmarks.plots import draw_growth, draw_layers
from benchmarks.register_section import large_registrations, registrations
from benchmarks.scans import Size
from pddnet.benchmarks.machine import machine_facts
from pddnet.benchmarks.registering import PairFiles, write_pair
from pddnet.cli import CANCELLED, OK
from pddnet.strict_json import to_json
from pddnet.terminal import Interruption

Report = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
_USUAL = ("layers", "register", "growth")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        layers: control points, labels, channels and rounds of the naive layers.
        presets: those that are registered with.
        size, spacing_mm, rounds: of the pair, and how often it is registered.
        parts: the voxels are divided by these for the growth.
        points, labels, channels, repeat: of the layers' growth; the largest of one list goes with all of the other.
        large: voxels of the largest scans.
    """

    layers: tuple[tuple[int, int, int, int], ...] = ((16, 11, 16, 3), (32, 15, 16, 1))
    presets: tuple[str, ...] = ("fast", "abdomen-ct")
    size: Size = (192, 160, 256)
    spacing_mm: float = 2.0
    rounds: int = 1
    parts: tuple[int, ...] = (8, 4, 2, 1)
    points: tuple[int, ...] = (8, 16, 24, 32)
    labels: tuple[int, ...] = (5, 9, 11, 15)
    channels: int = 16
    repeat: int = 3
    large: Size = (512, 512, 600)


QUICK = Plan(
    layers=((3, 3, 2, 1),),
    presets=("fast",),
    size=(40, 40, 40),
    spacing_mm=4.0,
    parts=(8, 1),
    points=(2, 4),
    labels=(3, 5),
    channels=2,
    repeat=1,
    large=(48, 48, 56),
)


def measure(
    plan: Plan, names: list[str], folder: Path, tell: Callable[[str], None]
) -> Iterator[tuple[str, Report]]:
    """The sections of these names, one after the other; `folder` holds the scans meanwhile."""
    files = PairFiles.in_folder(folder)
    if set(names) - {"layers"}:
        tell("making two synthetic patients")
        write_pair(folder, plan.size, plan.spacing_mm)
    machine = machine_facts(torch.device("cpu"))
    for name in names:
        yield name, _SECTIONS[name](plan, files, folder, tell) | {"machine": machine}


def _layers(plan: Plan, _: PairFiles, __: Path, tell: Callable[[str], None]) -> Report:
    return {"rows": [compare(*problem, tell) for problem in plan.layers]}


def _register(plan: Plan, files: PairFiles, folder: Path, tell: Callable[[str], None]) -> Report:
    rows = registrations(files, folder, plan.presets, plan.rounds, tell)
    return {"rows": rows, "size": plan.size, "spacing_mm": plan.spacing_mm}


def _growth(plan: Plan, files: PairFiles, folder: Path, tell: Callable[[str], None]) -> Report:
    most = {
        "--control-points": max(plan.points),
        "--labels": max(plan.labels),
        "--channels": plan.channels,
    }
    base = peak_of_nothing()
    return {
        "voxels": with_voxels(files, folder, plan.presets, plan.parts, base, tell),
        "control points": of_layers("--control-points", plan.points, most, plan.repeat, base, tell),
        "labels": of_layers("--labels", plan.labels, most, plan.repeat, base, tell),
    }


def _large(plan: Plan, files: PairFiles, folder: Path, tell: Callable[[str], None]) -> Report:
    larger = folder / "large-scans"
    larger.mkdir()
    rows = large_registrations(files, larger, plan.presets, plan.large, tell)
    return {"rows": rows, "usual_size": plan.size}


_SECTIONS: dict[str, Callable[[Plan, PairFiles, Path, Callable[[str], None]], Report]] = {
    "layers": _layers,
    "register": _register,
    "growth": _growth,
    "large": _large,
}


def write_documents(sections: Report, out: Path) -> None:
    """benchmarks.json, benchmarks.md and the plots of the sections in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(sections), indent=1, allow_nan=False)
    (out / "benchmarks.json").write_text(text + "\n", encoding="utf-8")
    if "layers" in sections:
        draw_layers(sections["layers"], out / "benchmarks-layers.svg")
    if "growth" in sections:
        draw_growth(sections["growth"], out / "benchmarks-growth.svg")
    (out / "benchmarks.md").write_text(page(sections), encoding="utf-8")


def summary(sections: Report) -> str:
    """The ratios and times that matter most, a line for each."""
    lines = []
    for found in sections.get("layers", {"rows": []})["rows"]:
        lines.append(
            f"layers {found['ours']['control_points']}^3 x {found['ours']['labels']}^3: {found['time_ratio']:.1f} "
            f"times as fast as the naive ones, {found['memory_ratio']:.1f} times less memory (medians)\n"
        )
    for found in sections.get("register", {"rows": []})["rows"]:
        lines.append(
            f"{found['preset']}: registration {found['seconds']:.1f} s, command {found['command_seconds']:.1f} s, "
            f"{found['peak_mb']:.0f} MB, Dice {found['dice_before']:.3f} -> {found['dice_after']:.3f}\n"
        )
    return "".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 130 cancelled."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(_SECTIONS), default=list(_USUAL), metavar="SECTION")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: is everything there?")
    asked = parser.parse_args(arguments)
    earlier = asked.out / "benchmarks.json"
    sections = json.loads(earlier.read_text(encoding="utf-8")) if earlier.exists() else {}
    plan = QUICK if asked.quick else Plan()
    try:
        with Interruption(immediate=True), tempfile.TemporaryDirectory(prefix="pddnet-bench-") as folder:
            for name, section in measure(plan, asked.only, Path(folder), _tell):
                sections[name] = section
                write_documents(sections, asked.out)
                print(summary({name: section}), end="", flush=True)
    except KeyboardInterrupt:
        print("cancelled; what was measured before is written", file=sys.stderr)
        return CANCELLED
    return OK


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
