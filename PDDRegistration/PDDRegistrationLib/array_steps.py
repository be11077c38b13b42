"""Arrays to and from .npy files in small steps, so that whoever drives the steps can do something else in between.

Plain reads and writes, not memory maps: a mapped file cannot be deleted on Windows while anybody holds the map.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pddnet.errors import InputError

STEP_BYTES = 1 << 22  # a few milliseconds
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The values of a C-contiguous array, flat, a step at a time, without a copy."""
    flat = array.reshape(-1)
    count = max(1, STEP_BYTES // array.dtype.itemsize)
    for start in range(0, flat.size, count):
        yield flat[start : start + count]


def writeArray(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, values: Iterable[np.ndarray]
) -> Iterator[None]:
    """Write an array whose values come in parts, in C order, each part one step."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in values:
            stream.write(memoryview(np.ascontiguousarray(part, dtype)).cast("B"))
            yield


def readArray(
    path: Path, what: str, allocate: Callable[[tuple[int, ...], np.dtype], np.ndarray]
) -> Generator[None, None, np.ndarray]:
    """Read an array into the memory that `allocate(shape, dtype)` offers, C-contiguous; returns that memory.

    Args:
        what: the array's name in messages.

    Raises:
        InputError: the file is missing, damaged or of no numbers.
    """
    try:
        with path.open("rb") as stream:
            array = allocate(*_header(stream))
            memory = memoryview(array.reshape(-1).view(np.uint8))
            done = 0
            while done < len(memory):
                count = stream.readinto(memory[done : done + STEP_BYTES])
                if not count:
                    raise ValueError(f"it ends {len(memory) - done} bytes early")
                done += count
                yield
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: {path.name} cannot be read ({error}); register again") from error
    return array


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"format version {version} is not known")
    shape, fortran, dtype = _HEADERS[version](stream)
    if fortran or dtype.kind not in "iuf" or not dtype.isnative:
        raise ValueError(f"numbers in C order are needed, not {dtype}{' in Fortran order' * fortran}")
    return shape, dtype
