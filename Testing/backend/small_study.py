"""A data set of five tiny scans on disk, of which each is the first one shifted, and methods that are easy to judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pddnet.cross_validation.methods import Found, Hooks
from pddnet.cross_validation.pairs import Split
from pddnet.geometry import ImageGeometry
from pddnet.interop.simpleitk import read_label_map, read_volume, write_label_map, write_volume
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform

GRID = ImageGeometry(
    (16, 14, 12),
    (1.5, 2.0, 3.0),
    (-7.0, 5.0, 11.0),
    ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0)),
)
NAMES = {1: "box", 2: "bar"}
SHIFTS = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 1}  # voxels along x


def label_map(shift: int) -> LabelMap:
    """A box and a bar."""
    data = torch.zeros(GRID.shape, dtype=torch.int32)
    data[3:8, 3:7, 3 + shift : 8 + shift] = 1
    data[3:8, 9:12, 2 + shift : 10 + shift] = 2
    return LabelMap(data, GRID, NAMES)


def write_scans(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Write all scans and label maps; their paths by name."""
    files = {}
    for name, shift in SHIFTS.items():
        labels = label_map(shift)
        noise = torch.rand(GRID.shape, generator=torch.Generator().manual_seed(shift))
        files[name] = folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz"
        write_volume(files[name][0], Volume(100.0 * labels.data + 10 * noise, GRID))
        write_label_map(files[name][1], labels)
    return files


def write_dataset(folder: Path, **changes: Any) -> Path:
    """Write all scans and the JSON file that names them, two folds included; `changes` replace its entries."""
    files = write_scans(folder)
    content = {
        "name": "boxes",
        "labels": {str(code): name for code, name in NAMES.items()},
        "cases": [{"name": n, "image": i.name, "labels": s.name} for n, (i, s) in files.items()],
        "folds": [{"train": list(fold.train), "test": list(fold.test)} for fold in FOLDS],
    }
    path = folder / "dataset.json"
    path.write_text(
        json.dumps({k: v for k, v in (content | changes).items() if v is not None}), encoding="utf-8"
    )
    return path


@dataclass(frozen=True)
class ScansOnDisk:
    """What the runner asks of a data set."""

    files: Mapping[str, tuple[Path, Path]]
    label_names: Mapping[int, str] = field(default_factory=lambda: NAMES)

    def image(self, name: str) -> Volume:
        return read_volume(self.files[name][0])

    def labels(self, name: str) -> LabelMap:
        return read_label_map(self.files[name][1], self.label_names)

    def content_hash(self, name: str) -> str:
        return hashlib.sha256(b"".join(path.read_bytes() for path in self.files[name])).hexdigest()


@dataclass(frozen=True)
class Fold:
    train: tuple[str, ...]
    test: tuple[str, ...]


FOLDS = (Fold(("d", "e"), ("a", "b", "c")), Fold(("a", "b", "c"), ("d", "e")))  # 3 * 2 + 2 * 1 = 8 pairs


@dataclass
class Fake:
    """A method whose answer is known; it notes what it is asked.

    `found` is "nothing", "truth" (the shift that the means of the labels tell) or the message of a failure.
    """

    name: str
    found: str
    settings: dict[str, Any] = field(default_factory=dict)
    training: bool = False
    reason: str | None = None
    calls: list[str] = field(default_factory=list)
    trained: list[tuple[str, ...]] = field(default_factory=list)
    before: Any = None
    training_seconds: float | None = None

    @property
    def title(self) -> str:
        return f"the {self.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"version": 1, "settings": dict(self.settings)}

    def absent(self) -> str | None:
        return self.reason

    def for_fold(self, fold: Split, hooks: Hooks) -> Fake:
        del hooks
        self.trained.append(fold.train)
        return self

    def register(self, fixed: Volume, moving: Volume, folder: Path) -> Found:
        assert folder.is_dir()
        assert not list(folder.iterdir())
        if self.before is not None:
            self.before(len(self.calls))
        self.calls.append(self.found)
        if self.found == "nothing":
            return Found(AffineTransform.identity(), 1.0, 100.0)
        if self.found != "truth":
            raise RuntimeError(self.found)
        steps = [_first_column(scan) for scan in (fixed, moving)]
        shift = 1.5 * (steps[1] - steps[0])
        direction = [row[0] for row in GRID.direction]
        return Found(AffineTransform.translation([shift * d for d in direction]), 2.0, None)


def _first_column(scan: Volume) -> int:
    """Where along x the bar begins."""
    return int((scan.data > 150).any(0).any(0).nonzero()[0])
