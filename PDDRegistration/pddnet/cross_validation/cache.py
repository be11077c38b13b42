"""What was measured, one JSON file a pair, named by a hash of everything that the result depends on.

Of this package that is its version, not its code: while you change the code, use a new folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pddnet.cross_validation.scores import PairScores
from pddnet.errors import InputError
from pddnet.interop.files import replacing
from pddnet.strict_json import from_json, to_json

_FORMAT = 1


@dataclass(frozen=True)
class Recipe:
    """All that one pair's result depends on.

    Args:
        method: its name.
        identity: its version, settings and the hash of its weights.
        fixed, moving: hashes of the scans' files, labels included.
        counted: the labels that are compared.
    """

    method: str
    identity: Mapping[str, Any]
    fixed: str
    moving: str
    counted: tuple[int, ...]

    @property
    def key(self) -> str:
        """A hash of it."""
        return content_hash({"format": _FORMAT, "recipe": to_json(self)})


def content_hash(value: Any) -> str:
    """SHA-256 of a value of JSON, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Cache:
    """Results in a folder, which is made with the first one."""

    folder: Path

    def path(self, recipe: Recipe) -> Path:
        """Where a result is kept."""
        return self.folder / f"{recipe.key}.json"

    def find(self, recipe: Recipe) -> PairScores | None:
        """The kept scores; None where there are none.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path(recipe)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return from_json(PairScores, json.loads(text)["scores"], "scores")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged ({error}); delete it, and the pair is measured again"
            ) from error

    def keep(self, recipe: Recipe, scores: PairScores, pair: str) -> None:
        """Write scores, and beside them what they are of; the file appears whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT, "pair": pair, "recipe": to_json(recipe), "scores": to_json(scores)}
        write_json(self.path(recipe), content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file appears whole or not at all."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text; the file appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
