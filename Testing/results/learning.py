"""The paper's Table 1 on data that is here: hippocampus MR and synthetic abdomens. Writes docs/results.md.

    python Testing/results/learning.py [--only hippocampus,abdomen] [--record FOLDER] [--iterations N] [--device D]

For each it makes the data set's JSON file, runs `pddnet benchmark`, and puts its tables between the markers `learning
hippocampus` and `learning abdomen`. FOLDER (default: build/learning) keeps trained weights and every pair's result: an
interrupted run goes on where it stopped. Settings of the trainings are in learning-hippocampus.toml and
learning-abdomen.toml beside this file. Other programs are used where $PDDNET_PEERS_* names them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report import ROOT, machine, parser_of, write_section

from pddnet import cli

HERE = Path(__file__).resolve().parent
HIPPOCAMPUS_LABELS = {"1": "anterior", "2": "posterior"}
PEERS = "deeds-5,ants-syn,greedy,elastix,convexadam"


@dataclass(frozen=True)
class Task:
    """One table.

    Args:
        name: of its section, after "learning ".
        methods: as `pddnet benchmark` takes them.
        reference: what the others are compared with.
        pairs: how many test pairs; None for all.
    """

    name: str
    methods: str
    reference: str = "pdd-net"
    pairs: int | None = None

    @property
    def plan(self) -> Path:
        """The settings of its trainings."""
        return HERE / f"learning-{self.name}.toml"


TASKS = (
    Task(
        "hippocampus",
        f"ssc-untrained,pdd-untrained,table-1,pdd-dice,pdd-mind,small-structure,generic,{PEERS}",
        pairs=60,
    ),
    Task("abdomen", f"ssc-untrained,pdd-untrained,table-1,pdd-dice,pdd-mind,abdomen-ct,fast,{PEERS}"),
)


def hippocampus_dataset(data: Path, file: Path) -> Path:
    """Write the JSON file that names the 60 scans, by paths relative to it, and return it.

    Raises:
        FileNotFoundError: the folder holds no scans.
    """
    scans = sorted((data / "hippocampus-mr" / "images").glob("*.nii.gz"))
    if not scans:
        raise FileNotFoundError(
            f"{data / 'hippocampus-mr' / 'images'} holds no scans; name their folder with --data"
        )
    labels = data / "hippocampus-mr" / "labels"
    cases = [
        {
            "name": scan.name.split(".")[0].removeprefix("hippocampus_"),
            "image": _relative(scan, file.parent),
            "labels": _relative(labels / scan.name, file.parent),
        }
        for scan in scans
    ]
    content = {
        "name": "hippocampus",
        "modality": "MR",
        "licence": "CC BY-SA 4.0 (Medical Segmentation Decathlon, task 4)",
        "labels": HIPPOCAMPUS_LABELS,
        "cases": cases,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return file


def abdomen_dataset(folder: Path) -> Path:
    """The ten synthetic patients, made unless they are there."""
    file = folder / "dataset.json"
    if not file.exists():
        _run(["dataset", "synthetic", "--out", str(folder), "--cases", "10"])
    return file


def command(task: Task, dataset: Path, out: Path, more: Sequence[str] = ()) -> list[str]:
    """The arguments of `pddnet` that make a task's tables."""
    arguments = ["benchmark", "--dataset", str(dataset), "--methods", task.methods, "--out", str(out)]
    arguments += ["--training", str(task.plan), "--reference", task.reference, "--folds", "3"]
    return [*arguments, *(["--pairs", str(task.pairs)] if task.pairs else []), *more]


def section(table: str) -> list[str]:
    """The Markdown of a section: what it was measured with, and the tables."""
    return [f"{machine()}.", "", *table.strip().splitlines()]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _run(arguments: Sequence[str]) -> None:
    """Run `pddnet`; ends this program where it fails."""
    code = cli.main(arguments)
    if code != 0:
        raise SystemExit(code)


def main() -> None:
    """Make each data set, measure, write."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--only", default="hippocampus,abdomen", help="which tables, with commas between")
    parser.add_argument("--record", type=Path, default=ROOT / "build" / "learning", help="what is kept")
    parser.add_argument("--iterations", help="of each training, instead of those of the settings")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    for task in (task for task in TASKS if task.name in wanted):
        folder = arguments.record / task.name
        if task.name == "hippocampus":
            dataset = hippocampus_dataset(arguments.data, folder / "dataset.json")
        else:
            dataset = abdomen_dataset(folder / "data")
        more = ["--device", arguments.device]
        more += ["--iterations", arguments.iterations] if arguments.iterations else []
        out = folder / "benchmark"
        _run(command(task, dataset, out, more))
        write_section(
            arguments.out, f"learning {task.name}", section((out / "table.md").read_text(encoding="utf-8"))
        )


if __name__ == "__main__":
    main()
