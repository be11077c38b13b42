"""What a training writes while it runs: a table of its losses, and logs for TensorBoard."""

from __future__ import annotations

import csv
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

HISTORY = "history.csv"
_COLUMNS = ("iteration", "name", "value")


class Monitor:
    """Keeps `history.csv` (iteration, name, value; values exact) and, on request, TensorBoard's logs in a folder.

    Args:
        folder: where both go.
        iteration: how many iterations are done; rows of later ones, of a training that was killed, are dropped.
        tensorboard: write its logs too, if it is installed; a warning says so if it is not.
    """

    def __init__(self, folder: Path, iteration: int, tensorboard: bool) -> None:
        self._path = folder / HISTORY
        kept = [row for row in read_history(folder) if row[0] <= iteration]
        with self._path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_COLUMNS, *((i, n, repr(v)) for i, n, v in kept)])
        self._logs: Any = _summary_writer(folder, iteration) if tensorboard else None

    def scalars(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        """Keep numbers of an iteration, under `group/name`."""
        with self._path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            for name, value in values.items():
                writer.writerow((iteration, f"{group}/{name}", repr(value)))
                if self._logs is not None:
                    self._logs.add_scalar(f"{group}/{name}", value, iteration)

    def picture(self, iteration: int, name: str, picture: torch.Tensor) -> None:
        """Keep a picture (3, height, width), 0 to 1, in TensorBoard's logs."""
        if self._logs is not None:
            self._logs.add_image(name, picture.numpy(), iteration)

    @property
    def shows_pictures(self) -> bool:
        """Whether anybody would see a picture."""
        return self._logs is not None

    def close(self) -> None:
        """Write what is still in memory."""
        if self._logs is not None:
            self._logs.close()


def read_history(folder: Path) -> list[tuple[int, str, float]]:
    """Iteration, name and value of all that was kept so far; empty where there is no table."""
    path = folder / HISTORY
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in list(csv.reader(file))[1:] if len(row) == len(_COLUMNS) and row[2]]
    return [(int(row[0]), row[1], float(row[2])) for row in rows]


def _summary_writer(folder: Path, iteration: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        warnings.warn(
            "TensorBoard is not installed, so its logs are not written; install it (pip install tensorboard), or set "
            "tensorboard = false",
            stacklevel=3,
        )
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)
