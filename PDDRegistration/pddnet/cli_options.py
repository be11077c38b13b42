"""Options that several commands of the command line share, and those of the commands that measure and make data."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_common(command: argparse.ArgumentParser) -> None:
    """Options of every command."""
    command.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    command.add_argument("--debug", action="store_true", help="show tracebacks and what libraries print")


def add_preset(command: argparse.ArgumentParser, default: str = "generic") -> None:
    """Which preset."""
    command.add_argument("--preset", default=default, help="name or .toml file; `pddnet info` lists them")


def add_device(command: argparse.ArgumentParser) -> None:
    """Where to compute."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1; `pddnet info` lists them")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def size(text: str) -> tuple[int, int, int]:
    """Three whole numbers of at least 1, as in 192x160x256."""
    parts = text.split("x")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not three whole numbers as in 192x160x256")
    x, y, z = (count(part) for part in parts)
    return x, y, z


def add_bench(command: argparse.ArgumentParser) -> None:
    """`pddnet bench`: its benchmarks and their options."""
    benchmarks = command.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    layers = benchmarks.add_parser(
        "layers", help="the network's 6-D layers on made-up features, beside the machine's limits"
    )
    layers.add_argument("--control-points", type=count, default=32, metavar="N", help="per axis")
    layers.add_argument("--labels", type=count, default=15, metavar="N", help="per axis")
    layers.add_argument("--channels", type=count, default=16, metavar="N", help="of the features")
    layers.add_argument("--save", type=Path, metavar="FILE", help=".npy for the expected displacements")
    register = benchmarks.add_parser(
        "register", help="`pddnet register` on two synthetic patients, in a process of its own"
    )
    register.add_argument("--size", type=size, default=(192, 160, 256), metavar="XxYxZ", help="voxels")
    register.add_argument("--spacing", type=float, default=2.0, metavar="MM", help="of the voxels")
    add_preset(register, "abdomen-ct")
    for benchmark, repeat in ((layers, 3), (register, 1)):
        add = benchmark.add_argument
        add("--repeat", type=count, default=repeat, metavar="N", help="how often; medians are reported")
        add("--seed", type=int, default=0, metavar="N", help="of what is made up")
        add("--threads", type=count, metavar="N", help="that PyTorch uses; by default as many as it likes")
        add_device(benchmark)
        add_common(benchmark)


def add_train(command: argparse.ArgumentParser) -> None:
    """`pddnet train`."""
    add = command.add_argument
    add(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="TOML file that says what to train, on what",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where results go; the file's name without .toml by default",
    )
    add("--iterations", type=count, metavar="N", help="instead of the configuration's")
    add("--resume", action="store_true", help="go on where an earlier run in the same folder stopped")
    add_device(command)


def add_benchmark(command: argparse.ArgumentParser) -> None:
    """`pddnet benchmark`."""
    add = command.add_argument
    add(
        "--dataset",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON file of scans, label maps and, if it prescribes them, folds",
    )
    add(
        "--methods",
        required=True,
        metavar="A,B,...",
        help="names, with commas between (an unknown one lists them all); table-1: the paper's; presets: all presets",
    )
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="tables, trained weights and all results kept",
    )
    add("--folds", type=count, metavar="K", help="of the cross-validation; 3, or those of the data set")
    add("--pairs", type=count, metavar="N", help="so many test pairs in all; by default every one")
    add("--seed", type=int, default=0, metavar="N", help="of the folds, the pairs and the training")
    add("--reference", metavar="METHOD", help="compare the others with this one (Wilcoxon signed-rank test)")
    add("--iterations", type=count, metavar="N", help="of each training; 1500, or those of --training")
    add(
        "--training",
        type=Path,
        metavar="FILE",
        help="TOML: settings as for `pddnet train`, and under [methods.NAME] what a method changes of them",
    )
    add_device(command)


def add_dataset(command: argparse.ArgumentParser) -> None:
    """`pddnet dataset`: what it makes and the options."""
    kinds = command.add_subparsers(dest="kind", required=True, metavar="KIND")
    made = kinds.add_parser("synthetic", help="abdominal CT of made-up patients, nine organs labelled")
    add = made.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the files go; made if it does not exist",
    )
    add("--cases", type=count, default=10, metavar="N", help="how many patients")
    add("--size", type=size, default=(128, 108, 150), metavar="XxYxZ", help="voxels")
    add("--spacing", type=float, default=3.0, metavar="MM", help="of the voxels")
    add("--seed", type=int, default=100, metavar="N", help="of the first patient; each next one has the next")
    add_common(made)
