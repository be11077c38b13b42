"""Data sets: a JSON file that names scans, their label maps and the folds of a cross-validation.

    {"name": "hippocampus", "modality": "MR", "licence": "CC BY-SA 4.0", "labels": {"1": "anterior", "2": "posterior"},
     "cases": [{"name": "001", "image": "images/001.nii.gz", "labels": "labels/001.nii.gz"}, ...],
     "folds": [{"train": ["001", "004"], "test": ["007", "009"]}, ...]}

Paths are relative to the file. "modality", "licence", "folds" and the labels of a case may be left out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pddnet.errors import InputError
from pddnet.interop import simpleitk as interop
from pddnet.interop.files import check_there
from pddnet.strict_json import from_json
from pddnet.volume import LabelMap, Volume

_SCANS_KEPT = 32  # of each kind, read last
_SAME_GRID_MM = 1e-2
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Case:
    """One scan of a data set: its name, its image file, and the file of its label map if it has one."""

    name: str
    image: Path
    labels: Path | None


@dataclass(frozen=True)
class Fold:
    """Names of the cases that are trained on and of those that are tested on."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class _CaseEntry:
    name: str
    image: str
    labels: str | None = None


@dataclass(frozen=True)
class _File:
    """What the JSON file holds."""

    name: str
    cases: tuple[_CaseEntry, ...]
    modality: str = ""
    licence: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    folds: tuple[Fold, ...] = ()


class Dataset:
    """Scans with label maps, read when they are asked for; the last ones are kept.

    Args:
        name: of the data set.
        cases: at least two, with different names.
        label_names: what the label maps' codes stand for; a map with another code is refused.
        folds: of a cross-validation, if the data set prescribes them.
        modality, licence: for people.

    Raises:
        InputError: fewer than two cases, names that repeat, folds that name unknown cases or test on training cases.
    """

    def __init__(
        self,
        name: str,
        cases: Iterable[Case],
        label_names: Mapping[int, str],
        folds: Iterable[Fold] = (),
        *,
        modality: str = "",
        licence: str = "",
    ) -> None:
        self.name, self.modality, self.licence = name, modality, licence
        self.cases, self.folds = tuple(cases), tuple(folds)
        self.label_names: Mapping[int, str] = MappingProxyType(dict(label_names))
        self._by_name = {case.name: case for case in self.cases}
        self._check()
        self._image = lru_cache(_SCANS_KEPT)(interop.read_volume)
        self._labels = lru_cache(_SCANS_KEPT)(self._read_labels)

    @classmethod
    def read(cls, path: str | Path) -> Dataset:
        """The data set of a JSON file; headers of its scans are checked, voxels are not read.

        Raises:
            InputError: the file cannot be used; a scan or label map is missing, or they lie on different grids.
        """
        path = Path(path)
        file = _parsed(path)
        entries = [
            Case(c.name, path.parent / c.image, path.parent / c.labels if c.labels else None)
            for c in file.cases
        ]
        dataset = cls(
            file.name, entries, _codes(file, path), file.folds, modality=file.modality, licence=file.licence
        )
        for case in dataset.cases:
            _check_files(case)
        return dataset

    def case(self, name: str) -> Case:
        """The case of a name; raises InputError where there is none."""
        if name not in self._by_name:
            raise InputError(
                f"data set {self.name} has no case '{name}'; it holds {_some(self._by_name)}: correct the name"
            )
        return self._by_name[name]

    def image(self, name: str) -> Volume:
        """The scan of a case; raises InputError where the file cannot be read."""
        return self._image(self.case(name).image)

    def labels(self, name: str) -> LabelMap:
        """The label map of a case.

        Raises:
            InputError: the case has none, the file cannot be read, or it holds codes that the data set does not name.
        """
        case = self.case(name)
        if case.labels is None:
            raise InputError(
                f"case '{name}' of data set {self.name} has no label map; add one, or leave the case out"
            )
        return self._labels(case.labels)

    @property
    def labelled(self) -> tuple[str, ...]:
        """Names of the cases that have a label map."""
        return tuple(case.name for case in self.cases if case.labels is not None)

    def cross_validation(self, folds: int, seed: int) -> tuple[Fold, ...]:
        """The data set's own folds, or `folds` random ones: each labelled case is tested on in one of them.

        Raises:
            InputError: fewer than two folds, or too few labelled cases for a pair in each test set.
        """
        if self.folds:
            return self.folds
        names = list(self.labelled)
        if folds < 2 or len(names) < 2 * folds:
            raise InputError(
                f"data set {self.name} has {len(names)} labelled cases for {folds} folds; needed are 2 or more folds "
                "and 2 or more labelled cases for each: ask for fewer folds, or add cases"
            )
        random.Random(seed).shuffle(names)
        tests = [set(names[number::folds]) for number in range(folds)]
        return tuple(
            Fold(
                tuple(n for n in self.labelled if n not in test), tuple(n for n in self.labelled if n in test)
            )
            for test in tests
        )

    def content_hash(self, name: str) -> str:
        """SHA-256 over the files of a case, hexadecimal."""
        case, digest = self.case(name), hashlib.sha256()
        for path in (case.image, case.labels):
            content = hashlib.sha256()
            for file in () if path is None else _files_of(path):
                with file.open("rb") as stream:
                    while block := stream.read(_BLOCK):
                        content.update(block)
            digest.update(content.digest())
        return digest.hexdigest()

    def _read_labels(self, path: Path) -> LabelMap:
        labels = interop.read_label_map(path, self.label_names)
        if unknown := sorted(set(labels.labels) - self.label_names.keys()):
            raise InputError(
                f"{path} holds the labels {_some(map(str, unknown))}, which data set {self.name} does not name; it "
                f'names {_some(map(str, self.label_names))}: add them under "labels", or correct the label map'
            )
        return labels

    def _check(self) -> None:
        if len(self.cases) < 2:
            raise InputError(
                f"data set {self.name} has {len(self.cases)} case(s); a registration needs two: add cases"
            )
        if len(self._by_name) < len(self.cases):
            names = [case.name for case in self.cases]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(
                f"data set {self.name} has several cases named {_some(twice)}; give each a name of its own"
            )
        for number, fold in enumerate(self.folds, 1):
            for name in (*fold.train, *fold.test):
                self.case(name)
            if both := sorted(set(fold.train) & set(fold.test)):
                raise InputError(
                    f"fold {number} of data set {self.name} trains and tests on {_some(both)}; name each case once"
                )


def _parsed(path: Path) -> _File:
    check_there(path)
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON file ({error}); a data set's description is needed") from error
    return from_json(_File, content, str(path))


def _codes(file: _File, path: Path) -> dict[int, str]:
    wrong = [code for code in file.labels if not code.isdecimal() or int(code) == 0]
    if wrong:
        raise InputError(
            f"{path} names the label codes {_some(wrong)}; whole numbers above 0 are needed, 0 is the background"
        )
    return {int(code): name for code, name in file.labels.items()}


def _check_files(case: Case) -> None:
    grid = interop.read_geometry(case.image)
    if case.labels is None:
        return
    of_labels = interop.read_geometry(case.labels)
    if not grid.is_close(of_labels, _SAME_GRID_MM):
        raise InputError(
            f"{case.labels} ({of_labels.size} voxels) does not lie on the grid of {case.image} ({grid.size} voxels); "
            "resample it onto the scan with nearest-neighbour interpolation"
        )


def _files_of(path: Path) -> Sequence[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
