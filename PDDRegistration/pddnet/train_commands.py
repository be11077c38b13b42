"""`pddnet train`: train a registration on a data set, as a TOML file says."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pddnet.commands import Answer
from pddnet.data import Dataset
from pddnet.learning.cases import training_cases
from pddnet.learning.settings import read_training_config
from pddnet.learning.trainer import SUMMARY, train
from pddnet.terminal import Interruption, ProgressDisplay


def train_command(arguments: argparse.Namespace, interruption: Interruption) -> Answer:
    """Read the configuration and the data set, train, and say how it went."""
    config = read_training_config(arguments.config)
    if arguments.iterations is not None:
        config = replace(config, iterations=arguments.iterations)
    dataset = Dataset.read(config.dataset)
    folder: Path = arguments.out or arguments.config.with_suffix("")
    with closing(ProgressDisplay()) as display:
        best = train(
            config,
            dataset,
            training_cases(config, dataset),
            folder,
            device=arguments.device,
            resume=arguments.resume,
            on_progress=display,
            cancelled=interruption.requested,
        )
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    report = {"weights": str(best), "folder": str(folder), **summary}
    return Answer(report, _text(report))


def _text(report: Mapping[str, Any]) -> str:
    stopped = f", stopped: {report['stopped']}" if report["stopped"] else ""
    return (
        f"{report['iteration']} iterations in {report['seconds']:.0f} s{stopped}; best validation "
        f"{report['best']:.4f} after {report['best_iteration']}; weights are in {report['weights']}"
    )
