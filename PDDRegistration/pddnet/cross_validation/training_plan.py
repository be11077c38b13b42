"""How the methods of a benchmark are trained: what all have in common, what each changes, and the grid."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pddnet.data import Dataset
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry, Matrix
from pddnet.interop.simpleitk import read_geometry
from pddnet.learning.grid import TrainingGrid
from pddnet.learning.settings import TrainingConfig
from pddnet.strict_json import from_json

_VOXELS = 96**3  # of the grid that is chosen where no file names one
_MULTIPLE = 8
_DECIDED = ("dataset", "method", "cases", "fold", "folds", "seed")  # by the benchmark


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of all trainings of a benchmark.

    Args:
        common: settings of `TrainingConfig`; `grid` among them.
        methods: what a method or a row of the tables changes of them, by name.
    """

    common: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TrainingPlan:
        """The plan in a TOML file: settings as for `pddnet train`, and under `[methods.NAME]` what a method changes.

        Raises:
            InputError: the file cannot be read, or names what the benchmark decides.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); a TOML file is needed") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no TOML file ({error}); correct it") from error
        methods = table.pop("methods", {})
        if not isinstance(methods, Mapping) or not all(isinstance(m, Mapping) for m in methods.values()):
            raise InputError(f'{path} has methods = {methods!r}; tables are needed: [methods."pdd-net"]')
        for where, settings in ((path, table), *((f"{path}: {name}", m) for name, m in methods.items())):
            if decided := sorted(set(settings) & set(_DECIDED)):
                raise InputError(
                    f"{where} names {', '.join(decided)}; the benchmark decides that: leave it out"
                )
        return cls(table, methods)

    @classmethod
    def default(cls, dataset: Dataset) -> TrainingPlan:
        """The paper's settings on a grid that covers every scan."""
        grids = [read_geometry(case.image) for case in dataset.cases]
        return cls({"grid": covering_grid(grids).as_json()})

    def config(
        self,
        dataset: Path,
        method: str,
        row: str,
        changes: Mapping[str, Any],
        cases: Sequence[str],
        seed: int,
        iterations: int | None,
    ) -> TrainingConfig:
        """How one row of the tables is trained on some cases.

        Args:
            method: what is trained, as `pddnet.learning.registry` calls it.
            row: the name of the row.
            changes: the method's settings that make the row what it is.
            iterations: instead of those of the plan.

        Raises:
            InputError: the plan has unknown settings or values that cannot be used.
        """
        table: dict[str, Any] = dict(self.common)
        settings = dict(table.pop("settings", {}))
        for name in dict.fromkeys((method, row)):
            own = dict(self.methods.get(name, {}))
            settings |= own.pop("settings", {})
            table |= own
        table |= {"dataset": str(dataset), "method": method, "cases": list(cases), "seed": seed}
        table["settings"] = settings | dict(changes)
        table.setdefault("tensorboard", False)
        config = from_json(TrainingConfig, table, f"the training of {row}")
        return config if iterations is None else replace(config, iterations=iterations)


def covering_grid(scans: Sequence[ImageGeometry]) -> TrainingGrid:
    """The grid of at most about 96^3 voxels, no finer than the finest scan, that covers each scan from its centre."""
    extents = np.max([_extent(scan) for scan in scans], axis=0)  # mm along the axes of the body
    finest = min(min(scan.spacing) for scan in scans)
    spacing = max(finest, (float(np.prod(extents)) / _VOXELS) ** (1 / 3))
    spacing = math.ceil(100 * spacing) / 100
    x, y, z = (_MULTIPLE * math.ceil(extent / spacing / _MULTIPLE) for extent in extents)
    return TrainingGrid((x, y, z), spacing)


def _extent(scan: ImageGeometry) -> Matrix:
    """Of the field of view along x, y, z, mm: (3,)."""
    corners = scan.corners()
    extent: Matrix = corners.max(0) - corners.min(0)
    return extent
