"""docs/results.md in pieces: each script replaces what lies between its own markers and leaves the rest alone."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

import pddnet

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
DOCS = ROOT / "docs"


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options that all these scripts have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real scans")
    parser.add_argument(
        "--out", type=Path, default=DOCS / "results.md", help="Markdown file with the markers"
    )
    return parser


def markers(name: str) -> tuple[str, str]:
    """The lines before and after a section."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with another section `name`; all else stays as it is.

    Raises:
        ValueError: the text does not have both markers, once each and in order.
    """
    begin, end = markers(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the section '{name}' needs one line '{begin}' and after it one line '{end}'")
    before, rest = text.split(begin)
    return "\n".join((before + begin, "", *lines, "", end)) + rest.split(end)[1]


def write_section(out: Path, name: str, lines: Sequence[str]) -> None:
    """Replace one section of a Markdown file."""
    out.write_text(replaced(out.read_text(encoding="utf-8"), name, lines), encoding="utf-8")
    print(f"section {name} written to {out}", flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table.

    Raises:
        ValueError: a row has another number of cells than the head.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row has {len(row)} cells and the head {len(head)}: {row}")
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def machine() -> str:
    """What the numbers were measured with."""
    return (
        f"pddnet {pddnet.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {platform.system()}"
    )
