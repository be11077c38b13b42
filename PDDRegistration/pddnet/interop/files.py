"""Files before they are read and while they are written: what is missing, damaged or in the way."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pddnet.errors import InputError
from pddnet.geometry import Matrix

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
TRANSFORM_SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm")
_CHUNK = 1 << 20
_LARGEST_PART = 1 << 22
_GZIP = zlib.MAX_WBITS + 16  # zlib's name for gzip
_NIFTI_2_HEADER = 540
_NIFTI_REAL_BYTES = {16: 4, 64: 8}  # by datatype code


def suffix_of(path: Path, known: Sequence[str]) -> str | None:
    """The one of `known` that the file's name ends with, in lower case, or None."""
    return next((suffix for suffix in known if path.name.lower().endswith(suffix)), None)


def stem_of(path: Path) -> str:
    """The file's name without its image suffix: `a.b.nii.gz` is `a.b`."""
    suffix = suffix_of(path, IMAGE_SUFFIXES)
    return path.name[: -len(suffix)] if suffix else path.stem


def check_readable(path: Path) -> None:
    """Refuse a path that holds no bytes to read.

    Raises:
        InputError: as `check_there`, or a NIfTI file is damaged.
    """
    check_there(path)
    if path.is_file() and suffix_of(path, (".nii", ".nii.gz")):
        _check_nifti(path)


def check_there(path: Path) -> None:
    """Refuse a path with nothing in it.

    Raises:
        InputError: nothing is there, or the file is empty or not permitted.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the spelling and the folder")
    if path.is_dir():
        return
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read; give yourself permission to read it")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or export it again")


def check_writable(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a path no file of one of `suffixes` can be written to.

    Raises:
        InputError: another suffix, a folder of that name, a parent that is missing, a file or not writable.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if suffix_of(path, suffixes) is None:
        raise InputError(
            f"{path} ends with none of {', '.join(suffixes)}; rename the output to the format you need"
        )
    _check_folder(path.parent, path)


def check_output_folder(path: Path) -> None:
    """Refuse a folder that cannot be created or written into.

    Raises:
        InputError: the path or one of its parents is a file, or the nearest existing folder is not writable.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"the output folder {path} is a file; name another folder or move the file away")
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    _check_folder(existing, path)
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=existing))  # what the permissions promise is not always so
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another folder") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place at the end, or is removed if the block fails."""
    suffix = suffix_of(path, (*IMAGE_SUFFIXES, *TRANSFORM_SUFFIXES)) or path.suffix
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path, obsolete: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary folder beside `folder`; its files move into `folder` at the end, unless the block fails.

    Files of the same names, and those named in `obsolete`, make room at the very end; other files stay. If a
    move fails, what was there before comes back.

    Raises:
        InputError: `folder` cannot be created or written into.
    """
    check_output_folder(folder)
    folder = folder.absolute()
    missing = [parent for parent in folder.parents if not parent.exists()]  # the deepest first
    temporary = folder.with_name(f".{uuid.uuid4().hex[:12]}")
    done = False
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield temporary
        _move_files(temporary, folder, obsolete)
        done = True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in () if done else missing:
            with suppress(OSError):  # somebody else has put something there by now
                parent.rmdir()


def check_slices(positions: Matrix, orientations: Matrix, source: str) -> None:
    """Refuse DICOM slices that do not lie on a regular grid.

    Args:
        positions: (N, 3) Image Position (Patient) of the slices in order, mm, LPS.
        orientations: (N, 6) Image Orientation (Patient).
        source: what the slices belong to, for the message.

    Raises:
        InputError: the slices turn, repeat, leave gaps, or are shifted sideways (gantry tilt).
    """
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise InputError(
            f"{source}: its slices have different orientations; choose a series without localisers"
        )
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    steps = np.diff(positions, axis=0)
    heights = steps @ normal
    typical = float(np.median(heights))
    if abs(typical) < 1e-3 or np.abs(heights - typical).max() > 0.05 * abs(typical):
        raise InputError(
            f"{source}: its slices are {heights.min():.3g} to {heights.max():.3g} mm apart, so some are "
            "missing or repeated; export the series again, one phase at a time, or resample it evenly"
        )
    if np.linalg.norm(steps - heights[:, None] * normal, axis=1).max() > 0.05 * abs(typical):
        raise InputError(f"{source}: its gantry is tilted; convert it with dcm2niix, which corrects the tilt")


def _move_files(source: Path, target: Path, obsolete: Sequence[str]) -> None:
    names = [path.name for path in source.iterdir()]
    target.mkdir(exist_ok=True)
    replaced = source / "replaced"
    replaced.mkdir()
    in_the_way = [name for name in dict.fromkeys((*names, *obsolete)) if (target / name).is_file()]
    placed: list[str] = []
    try:
        for name in in_the_way:
            os.replace(target / name, replaced / name)
        for name in names:
            os.replace(source / name, target / name)
            placed.append(name)
    except BaseException:
        for name in placed:
            (target / name).unlink()
        for path in list(replaced.iterdir()):
            os.replace(path, target / path.name)
        raise


def _check_folder(folder: Path, target: Path) -> None:
    if not folder.exists():
        raise InputError(f"{target} cannot be written: the folder {folder} does not exist; create it first")
    if not folder.is_dir():
        raise InputError(f"{target} cannot be written: {folder} is a file; name a path inside a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{target} cannot be written: the folder {folder} is not writable; choose another")


@dataclass(frozen=True)
class _NiftiLayout:
    """Where the voxels of a NIfTI file begin, where they end, and their type if they are real numbers."""

    start: int
    end: int
    real: np.dtype[np.floating[Any]] | None


def _check_nifti(path: Path) -> None:
    # ITK fills what is missing of a NIfTI file with zeros, and what is not finite too, and does not say so
    packed = path.name.lower().endswith(".gz")
    end, not_finite, cut = 0, 0, b""
    try:
        with path.open("rb") as file:
            parts = _unpacked(file) if packed else iter(lambda: file.read(_CHUNK), b"")
            header = b""
            while len(header) < _NIFTI_2_HEADER and (part := next(parts, b"")):
                header += part
            if packed and header[:2] == b"\x1f\x8b":
                raise InputError(f"{path} was compressed twice; unpack it once with gunzip")
            layout = _nifti_layout(header)
            if layout is None:
                raise InputError(f"{path} is not a NIfTI image, whatever its name says; give an image file")
            for part in itertools.chain((header,), parts):
                voxels = cut + part[max(0, layout.start - end) :]
                end += len(part)
                if layout.real is not None:
                    whole = len(voxels) // layout.real.itemsize * layout.real.itemsize
                    not_finite += int((~np.isfinite(np.frombuffer(voxels[:whole], layout.real))).sum())
                    cut = voxels[whole:]
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path} is truncated or damaged ({error}); copy or export it again") from error
    if end < layout.end:
        raise InputError(
            f"{path} is truncated: it holds {end} of {layout.end} bytes; copy or export it again"
        )
    if not_finite:
        raise InputError(
            f"{path} has {not_finite} voxels that are NaN or infinite; "
            "replace them, for instance by the value of air"
        )


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """The contents of a gzip file in large parts: Python's own reader takes the interpreter's lock for each 8 kB.

    Raises:
        EOFError, zlib.error: the file ends too early or is damaged.
    """
    inflate, begun, packed = zlib.decompressobj(_GZIP), False, b""
    while True:
        packed = packed or file.read(_CHUNK)
        part = inflate.decompress(packed, _LARGEST_PART)
        if not packed and not part:
            break
        begun, packed = True, inflate.unconsumed_tail
        if inflate.eof:  # another member may follow, or zeros up to the end of a tape's block
            packed = inflate.unused_data.lstrip(b"\0")
            inflate, begun = zlib.decompressobj(_GZIP), False
        yield part
    if begun:
        raise EOFError("it ends before the end of its compressed data")


def _nifti_layout(header: bytes) -> _NiftiLayout | None:
    """The layout of a NIfTI-1 or NIfTI-2 file, unpacked; None if `header` is of neither."""
    for order in "<>":
        if len(header) >= 348 and struct.unpack_from(order + "i", header)[0] == 348:
            dims, kind = (
                struct.unpack_from(order + "8h", header, 40),
                struct.unpack_from(order + "2h", header, 70),
            )
            start = int(struct.unpack_from(order + "f", header, 108)[0])
        elif len(header) >= 540 and struct.unpack_from(order + "i", header)[0] == 540:
            dims, kind = (
                struct.unpack_from(order + "8q", header, 16),
                struct.unpack_from(order + "2h", header, 12),
            )
            start = struct.unpack_from(order + "q", header, 168)[0]
        else:
            continue
        code, bits = kind
        length = prod(dims[1 : 1 + min(max(dims[0], 0), 7)]) * bits // 8
        real = np.dtype(f"{order}f{_NIFTI_REAL_BYTES[code]}") if code in _NIFTI_REAL_BYTES else None
        return _NiftiLayout(max(0, start), start + length, real)
    return None
