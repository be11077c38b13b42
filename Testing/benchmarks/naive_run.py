"""Time the naive layers once, as `pddnet bench layers` times ours: same features, same options, same JSON.

python Testing/benchmarks/naive_run.py --control-points 32 --labels 15 --channels 16 --seed 0 [--save FILE.npy]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names would hide others
    for folder in ("PDDRegistration", "Testing"):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / folder))

from pddnet.process import let_waiting_threads_sleep

if __name__ == "__main__":
    let_waiting_threads_sleep()  # before PyTorch is imported

import numpy as np
import torch

from benchmarks.naive_layers import naive_layers
from pddnet.benchmarks.layers import LayerProblem
from pddnet.regularisation import PUBLISHED_WEIGHTS


def main(arguments: list[str] | None = None) -> None:
    """Run them once and print seconds and stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("--control-points", "--labels", "--channels", "--seed"):
        parser.add_argument(option, type=int, required=True)
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args(arguments)
    problem = LayerProblem(asked.control_points, asked.labels, asked.channels, asked.seed)
    fixed, moving = problem.features()
    points, labels = problem.level.points(fixed), problem.level.labels(fixed)
    stages: dict[str, float] = {}
    began = time.perf_counter()
    displacement: torch.Tensor = naive_layers(
        fixed, moving, points, labels, PUBLISHED_WEIGHTS, stages.__setitem__
    )
    seconds = time.perf_counter() - began
    if asked.save is not None:
        np.save(asked.save, displacement.numpy())
    print(json.dumps({"seconds": seconds, "stages": stages}))


if __name__ == "__main__":
    main()
