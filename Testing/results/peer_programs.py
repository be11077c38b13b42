"""The programs that are compared, behind one interface: the peers' adapters, and our own command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from canvas import Pair

from pddnet.baselines.external.child import Command
from pddnet.baselines.external.deeds import Deeds
from pddnet.baselines.external.packages import AntsSyn, ConvexAdam, Greedy
from pddnet.baselines.external.program import ExternalMethod, Files, Peers
from pddnet.baselines.method import Method
from pddnet.geometry import ImageGeometry
from pddnet.interop.simpleitk import read_transform
from pddnet.volume import Volume
from pddnet.warp import DisplacementField


@dataclass(frozen=True)
class Program:
    """A method and what the tables and records call it.

    Args:
        windowed: it compares intensities; the others' descriptors take raw ones, as their authors give them.
    """

    name: str
    method: Method
    windowed: bool = False


class OwnCommand(ExternalMethod):
    """`pddnet register` with a preset, in a process of its own as the peers are."""

    by_intensity = False

    def __init__(self, preset: str, peers: Peers) -> None:
        super().__init__(peers)
        self.name = self.title = preset

    def absent(self) -> str | None:
        """It is always there."""
        return None

    def commands(self, files: Files) -> Sequence[Command]:
        """One command, from files to files."""
        scans: Command = ["--fixed", files.fixed, "--moving", files.moving]
        register: Command = [sys.executable, "-m", "pddnet", "register", *scans, "--preset", self.name]
        return [[*register, "--out", files.at("result")]]

    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        """The transform it wrote, on its own grid."""
        found = read_transform(files.at("result") / "transform.h5")
        if isinstance(found, DisplacementField):
            return found
        return DisplacementField.sampled(found, grid, grid)


def all_programs(presets: Sequence[str], python: str, deeds: str, threads: int) -> list[Program]:
    """The peers, then our presets."""
    peers = Peers(python, deeds, threads=threads)
    others = [kind(peers) for kind in (AntsSyn, Greedy, ConvexAdam)]
    return [
        Program("deeds", Deeds(peers)),
        *(Program(other.title, other, other.by_intensity) for other in others),
        *(Program(f"pddnet {preset}", OwnCommand(preset, peers)) for preset in presets),
    ]


def scans(pair: Pair, windowed: bool) -> tuple[Volume, Volume]:
    """Fixed and moving scan, their intensities as scanned or cut to the window."""
    fixed, moving = (
        Volume(subject.scan.data.clamp(*subject.window), subject.scan.geometry) if windowed else subject.scan
        for subject in (pair.fixed, pair.moving)
    )
    return fixed, moving
