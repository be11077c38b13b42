"""docs/benchmarks.md from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]

_INTRODUCTION = """\
# Benchmarks

Made by `make bench`, all but the section on the largest scans, which `make bench BENCH_ARGS="--only large"` adds; each
section says what measures it alone. `benchmarks.json` has all numbers. Every program ran in a process of its own, so
that its peak memory is its own; *peak MB* (10^6 bytes) includes Python, PyTorch and SimpleITK. Times are wall time.

Other programs on the machine make times longer, never shorter: compare times only within one section, and take ratios
to another machine, not seconds. Where something ran several times the table has the median and, in brackets, the
range; what ran once has no spread to judge it by."""


def page(sections: Report) -> str:
    """The whole document, of the sections that were measured."""
    writers = {"layers": _layers, "register": _register, "growth": _growth, "large": _large}
    texts = [writers[name](sections[name]) for name in writers if name in sections]
    return "\n\n".join([_INTRODUCTION, *texts]) + "\n"


def _layers(section: Report) -> str:
    rows = [
        [
            f"{found['ours']['control_points']}^3, {found['ours']['labels']}^3, {found['ours']['channels']}",
            _seconds(found["naive_seconds"]),
            _seconds(found["our_seconds"]),
            f"**{found['time_ratio']:.1f}**",
            f"{found['naive_peak_mb']:.0f}",
            f"{found['our_peak_mb']:.0f}",
            f"**{found['memory_ratio']:.1f}**",
            f"{found['largest_difference']:.0e}",
        ]
        for found in section["rows"]
    ]
    header = [
        "control points, labels, channels",
        "naive s",
        "ours s",
        "times as fast",
        "naive peak MB",
        "ours peak MB",
        "times less memory",
        "largest difference",
    ]
    largest = section["rows"][-1]
    return "\n\n".join(
        [
            "## The 6-D layers",
            "From the features of a pair to the expected displacement of each control point: dissimilarities, two "
            "rounds of min-convolution and mean field, softmax, expectation. *Naive* is "
            "`Testing/benchmarks/naive_layers.py`, which computes them as the paper's formulas and the published code "
            "read. The two ran in turn. The largest difference is that of the expected displacements, normalised: 2 is "
            "the length of the image.",
            _made_by("layers", section, _layer_commands(largest["ours"])),
            _table(header, rows),
            "![Seconds of each stage, naive and ours](benchmarks-layers.svg)",
            _limits_text(largest),
        ]
    )


def _layer_commands(report: Report) -> str:
    options = f"--control-points {report['control_points']} --labels {report['labels']} --channels {report['channels']}"
    return f"`pddnet bench layers {options} --json` and `python Testing/benchmarks/naive_run.py {options} --seed 0`"


def _limits_text(found: Report) -> str:
    ours = found["ours"]
    limits, seconds = ours["limits"], statistics.median(found["our_seconds"])
    products = 2 * ours["channels"] * (ours["control_points"] * ours["labels"]) ** 3
    others = (ours["least_flops"] - products) / (1e9 * limits["elementwise_gop_s"])
    rows = [
        ["memory, copied", f"{limits['copy_gb_s']:.1f} GB/s"],
        ["memory, overwritten in place", f"{limits['in_place_gb_s']:.1f} GB/s"],
        ["matrix product, float32", f"{limits['gemm_gflop_s']:.0f} GFLOP/s"],
        ["minima of two arrays in the cache", f"{limits['elementwise_gop_s']:.1f} Gop/s"],
    ]
    return (
        "What the machine reached in the same run as the last row (bytes read and written both count):\n\n"
        + _table(["what", "rate"], rows)
        + f"\n\nThe last row needs at least {ours['least_flops'] / 1e9:.1f} GFLOP (filters as running sums, squared "
        f"differences as a matrix product) and, if all between features and result stays in the caches, "
        f"{ours['least_bytes'] / 1e9:.2f} GB of memory traffic: {ours['least_seconds']:.3f} s at the rate of matrix "
        f"products and of memory, the slower of the two. Ours takes {seconds:.2f} s and so reaches "
        f"**{ours['least_seconds'] / seconds:.1%}** of a limit that only one compiled, fused kernel could come near. "
        "PyTorch's operations pass over the cache one at a time; in this way, at the rate of the minima, what is not a "
        f"matrix product would take {others:.2f} s. Six-dimensional volumes ({ours['volume_mb']:.0f} MB each), written "
        f"and read by every pass, would move {ours['pass_bytes'] / 1e9:.1f} GB."
    )


def _register(section: Report) -> str:
    rows = [
        [
            f"`{found['preset']}`",
            _seconds(found["all_seconds"]),
            _seconds(found["all_command_seconds"]),
            f"{found['peak_mb']:.0f}",
            f"{found['dice_before']:.3f}",
            f"{found['dice_after']:.3f}",
            f"{found['folding_percent']:.4f}",
            f"{found['log_jacobian_std']:.2f}",
        ]
        for found in section["rows"]
    ]
    header = [
        "preset",
        "registration s",
        "whole command s",
        "peak MB",
        "Dice before",
        "after",
        "folding %",
        "std(log Jac)",
    ]
    size = "x".join(map(str, section["size"]))
    command = (
        f"pddnet bench register --size {size} --spacing {section['spacing_mm']:g} --preset PRESET --json"
    )
    return "\n\n".join(
        [
            "## Whole registrations",
            f"Two synthetic patients of {size} voxels of {section['spacing_mm']:g} mm, in compressed NIfTI files with "
            "labels of nine organs. *Whole command* is `pddnet register` from its start to the last file written, "
            "warped labels included.",
            _made_by("register", section, f"`{command}`"),
            _table(header, rows),
            "Seconds by stage of the registration:",
            _stage_table(section["rows"]),
        ]
    )


def _stage_table(reports: Sequence[Report]) -> str:
    names = list(dict.fromkeys(stage for found in reports for stage in found["stages"]))
    names.sort(key=lambda name: (name == "finish", name.startswith(("level", "refine"))))
    rows = [
        [name, *(f"{found['stages'][name]:.2f}" if name in found["stages"] else "" for found in reports)]
        for name in names
    ]
    return _table(["stage", *(f"`{found['preset']}`" for found in reports)], rows)


def _growth(section: Report) -> str:
    rows = []
    for preset, curve in section["voxels"].items():
        rows.append(
            [f"registration, `{preset}`", "voxels", *_curve_cells(curve, lambda n: f"{n / 1e6:.1f} M")]
        )
    for name in ("control points", "labels"):
        curve = section[name]
        cells = _curve_cells(curve, lambda n: f"{round(n ** (1 / 3))}^3")
        rows.append(["6-D layers", name, *cells])
    header = ["what", "against", "sizes", "seconds", "peak MB", "time ~ size^", "memory ~ size^"]
    return "\n\n".join(
        [
            "## Growth",
            "Time and peak memory against the number of voxels (the pair above with an eighth, a quarter, half and all "
            "of its voxels, which stay 2 mm large: the working grid has a spacing of its own, so fewer voxels of a "
            "larger size would change little), of control points (15^3 labels) and of labels (32^3 control points). "
            "Exponents are slopes of least-squares lines through the logarithms; 1 is proportional. Those of the "
            f"memory are of what comes on top of the {section['labels']['base_mb']:.0f} MB that the program takes to "
            "do nothing.",
            _made_by("growth", section),
            _table(header, rows),
            "![Seconds and peak memory against voxels, control points and labels](benchmarks-growth.svg)",
        ]
    )


def _curve_cells(curve: Report, size_text: Any) -> list[str]:
    memory = curve["memory_exponent"]
    return [
        ", ".join(size_text(size) for size in curve["sizes"]),
        ", ".join(f"{seconds:.3g}" for seconds in curve["seconds"]),
        ", ".join(f"{peak:.0f}" for peak in curve["peak_mb"]),
        f"{curve['time_exponent']:.2f}",
        "-" if memory is None else f"{memory:.2f}",
    ]


def _large(section: Report) -> str:
    rows = [
        [
            f"`{found['preset']}`",
            "x".join(map(str, size)),
            f"{run['seconds']:.1f}",
            f"{run['command_seconds']:.1f}",
            f"{run['registration_peak_mb']:.0f}",
            f"{run['peak_mb']:.0f}",
            f"{run['folding_percent']:.4f}",
        ]
        for found in section["rows"]
        for size, run in ((section["usual_size"], found["usual"]), (found["size"], found["large"]))
    ]
    header = [
        "preset",
        "voxels",
        "registration s",
        "whole command s",
        "peak MB, registration",
        "peak MB, command",
        "folding %",
    ]
    ratios = ", ".join(f"{found['time_ratio']:.2f} (`{found['preset']}`)" for found in section["rows"])
    return "\n\n".join(
        [
            "## The largest scans",
            "The same two patients with their usual voxels and with those of the largest clinical CTs, interpolated "
            "over the same field of view and stored as int16: the bodies, and so the work of the levels, are the same. "
            f"Without label maps. The registration alone takes {ratios} times as long; the rest of the command reads "
            "and writes files of so many more voxels.",
            _made_by("large", section),
            _table(header, rows),
        ]
    )


def _made_by(part: str, section: Report, commands: str = "") -> str:
    machine = section["machine"]
    singly = f" (singly: {commands})" if commands else ""
    return (
        f'`make bench BENCH_ARGS="--only {part}"`{singly}; {machine["processor"]}, {machine["cores"]} cores, '
        f"{machine['threads']} threads, {machine['system']}, Python {machine['python']}, torch {machine['torch']}."
    )


def _seconds(runs: Sequence[float]) -> str:
    """The median, and the range of several."""
    spread = f" ({min(runs):.2f}-{max(runs):.2f})" if len(runs) > 1 else ""
    return f"{statistics.median(runs):.2f}{spread}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
