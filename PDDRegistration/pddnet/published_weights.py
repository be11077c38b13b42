"""Fetch published weights by name, into a folder of this user, checked against their SHA-256.

The names, addresses and hashes are in weights/manifest.toml. Nothing is fetched unless it is asked for.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from pddnet.errors import InputError

_MANIFEST = Path(__file__).parent / "weights" / "manifest.toml"
_BLOCK = 1 << 16
_TIMEOUT_SECONDS = 30.0


class CheckpointError(InputError):
    """A file cannot be had or used as weights; the message says which, why and what to do."""


@dataclass(frozen=True)
class PublishedWeights:
    """One entry of the manifest.

    Args:
        name: what `fetch_weights` is asked for.
        file: name of the file, here and there.
        sha256: of the file, hexadecimal.
        size: of the file in bytes.
        architecture: what the weights are of, in words.
        licence: under which they are published.
        url: where they are.
    """

    name: str
    file: str
    sha256: str
    size: int
    architecture: str
    licence: str
    url: str


def published_weights(manifest: Path = _MANIFEST) -> dict[str, PublishedWeights]:
    """All weights that can be fetched, by name."""
    with manifest.open("rb") as file:
        return {name: PublishedWeights(name=name, **entry) for name, entry in tomllib.load(file).items()}


def cache_folder() -> Path:
    """Where fetched weights are kept: $PDDNET_CACHE, or the platform's folder for such things."""
    if chosen := os.environ.get("PDDNET_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "pddnet" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pddnet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pddnet"


def fetch_weights(
    name: str,
    folder: Path | None = None,
    *,
    manifest: Mapping[str, PublishedWeights] | None = None,
    between_chunks: Callable[[], None] | None = None,
) -> Path:
    """Path of published weights on this machine; downloads them unless they are there with the right hash.

    Args:
        name: of the manifest.
        folder: where to keep them, `cache_folder()` by default.
        manifest: what there is, `published_weights()` by default.
        between_chunks: called as the file comes in; what it raises ends the download without a trace.

    Raises:
        CheckpointError: an unknown name; no connection; another file than the manifest promises.
    """
    known = published_weights() if manifest is None else manifest
    if name not in known:
        raise CheckpointError(
            f"there are no published weights {name!r}; one of {', '.join(sorted(known))} is needed"
        )
    weights, folder = known[name], cache_folder() if folder is None else folder
    target = folder / weights.file
    if target.is_file() and file_sha256(target) == weights.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=folder, prefix=f".{weights.file}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _download(weights, target, file, between_chunks)
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return target


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); a weights file is needed"
        ) from error


def _download(
    weights: PublishedWeights, target: Path, file: IO[bytes], between_chunks: Callable[[], None] | None
) -> None:
    by_hand = f"Fetch {weights.url} by other means, save it as {target}, and try again"
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(weights.url, timeout=_TIMEOUT_SECONDS) as response:
            while (block := response.read(_BLOCK)) and received <= weights.size:
                if between_chunks is not None:
                    between_chunks()
                file.write(block)
                digest.update(block)
                received += len(block)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise CheckpointError(
            f"weights {weights.name!r} cannot be downloaded ({error}). {by_hand}"
        ) from error
    if digest.hexdigest() != weights.sha256:
        raise CheckpointError(
            f"{weights.url} gave {received} bytes that are not the {weights.size} bytes of {weights.name!r} "
            f"(SHA-256 {weights.sha256}); nothing was kept. {by_hand}"
        )
