"""Other programs beside our presets on the same files: Dice, regularity, time. Writes docs/results.md.

    python Testing/results/peers.py [--python PYTHON] [--deeds FOLDER] [--threads N] [--bodies abdomen,brain]
                                      [--record FILE]

PYTHON is an interpreter with antspyx, picsl-greedy and convexAdam, or some of them (default: $PDDNET_PEERS_PYTHON);
FOLDER holds linearBCV, deedsBCV and applyBCVfloat (default: $PDDNET_PEERS_DEEDS, else PATH). What is not there is
reported as absent. Times are whole commands, from files to files. FILE (JSON) keeps what was measured: what it holds
is not run again, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from canvas import Judgement, Pair, abdomens, brains, counted_labels, judged
from peer_programs import Program, all_programs, scans
from report import machine, parser_of, table, write_section

from pddnet.warp import AffineTransform

OURS = {"abdomen": ("abdomen-ct", "fast"), "brain": ("brain-mr",)}
HEAD = ("program", "pair", "Dice", "std(log J)", "folding %", "s", "threads")


@dataclass(frozen=True)
class Run:
    """One program on one pair; `judgement` is None where it is absent, `seconds` where nothing ran."""

    program: str
    pair: Pair
    judgement: Judgement | None
    seconds: float | None = None


def measured(program: Program, pair: Pair) -> Run:
    """Run one program on one pair and judge what it found."""
    if reason := program.method.absent():
        print(f"{program.name} is absent: {reason}", flush=True)
        return Run(program.name, pair, None)
    with tempfile.TemporaryDirectory() as folder:
        found = program.method.register(*scans(pair, program.windowed), Path(folder))
    judgement = judged(pair, found.transform)
    print(f"{program.name}: {pair.name}: Dice {judgement.mean_dice:.3f}, {found.seconds:.0f} s", flush=True)
    return Run(program.name, pair, judgement, found.seconds)


class Record:
    """Runs that were measured, in a JSON file where one is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._runs: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._runs = json.loads(path.read_text(encoding="utf-8"))

    def measured(self, program: Program, pair: Pair) -> Run:
        """The recorded run of a program on a pair, or a new one."""
        key = f"{program.name}: {pair.name}"
        if key not in self._runs:
            run = measured(program, pair)
            if run.judgement is None or run.seconds is None:
                return run  # what is absent may be there the next time
            self._runs[key] = {"seconds": run.seconds, **asdict(run.judgement)}
            if self._path is not None:
                self._path.write_text(json.dumps(self._runs, indent=1), encoding="utf-8")
        kept = dict(self._runs[key])
        seconds, dice = kept.pop("seconds"), {int(label): score for label, score in kept.pop("dice").items()}
        return Run(program.name, pair, Judgement(dice, **kept), seconds)


def row_of(run: Run, threads: int) -> list[str]:
    """The cells of `HEAD`."""
    if run.judgement is None:
        return [run.program, run.pair.name, "absent", "", "", "", ""]
    j = run.judgement
    cells = [
        run.program,
        run.pair.name,
        f"{j.mean_dice:.3f}",
        f"{j.log_jacobian_std:.2f}",
        f"{j.folding_percent:.4f}",
    ]
    return [*cells, *(["", ""] if run.seconds is None else [f"{run.seconds:.1f}", str(threads)])]


def by_label(runs: Sequence[Run], names: Mapping[int, str]) -> list[str]:
    """Dice of each label by each program, the pairs in their order."""
    there = [(run.program, run.judgement.dice) for run in runs if run.judgement is not None]
    heads = list(dict.fromkeys(program for program, _ in there))
    rows = []
    for label in sorted(set().union(*(dice for _, dice in there))):
        scores = [[f"{d[label]:.2f}" if label in d else "-" for p, d in there if p == head] for head in heads]
        rows.append([names.get(label, str(label)), *(" / ".join(cells) for cells in scores)])
    return table(["label", *heads], rows)


def section(runs: Sequence[Run], pairs: Sequence[Pair], names: Mapping[int, str], threads: int) -> list[str]:
    """The Markdown of one part of the body; Dice by label where the labels have names."""
    count = len(counted_labels(pairs[0]))
    lines = [
        f"Mean Dice of {count} labels; {machine()}.",
        "",
        *table(HEAD, [row_of(run, threads) for run in runs]),
    ]
    if not names:
        return lines
    ways = " / ".join(pair.name for pair in pairs)
    return [*lines, "", f"Dice by organ, {ways}:", "", *by_label(runs, names)]


def main() -> None:
    """Run every program on every pair, one after the other."""
    parser = parser_of(__doc__ or "")
    parser.add_argument(
        "--python", default=os.environ.get("PDDNET_PEERS_PYTHON", ""), help="the peers' interpreter"
    )
    parser.add_argument(
        "--deeds", default=os.environ.get("PDDNET_PEERS_DEEDS", ""), help="folder of its programs"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bodies", default="abdomen,brain", help="which pairs, with commas between")
    parser.add_argument("--record", type=Path, metavar="FILE", help="JSON file of what was measured so far")
    arguments = parser.parse_args()
    record = Record(arguments.record)
    for part in arguments.bodies.split(","):
        names: Mapping[int, str] = {}
        if part == "abdomen":
            *pairs, names = abdomens(arguments.data)
        else:
            pairs = list(brains(arguments.data))
        runs = [Run("before", pair, judged(pair, AffineTransform.identity())) for pair in pairs]
        for program in all_programs(OURS[part], arguments.python, arguments.deeds, arguments.threads):
            runs += [record.measured(program, pair) for pair in pairs]
            write_section(arguments.out, f"peers {part}", section(runs, pairs, names, arguments.threads))


if __name__ == "__main__":
    main()
