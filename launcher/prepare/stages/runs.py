"""Files of records in the order of a whole number, so that a range of it is one piece of the file.

This is how rows meet across units without passing through the driver: each task of a stage leaves
its records sorted by a key, and a task of the next stage reads its range of keys from every one.
A file holds the number of keys K, K + 1 offsets (counted in records), and the records; all numbers
are little-endian, 8 bytes each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

PREFIXES = 4096
"""Keys of records that are sorted by the first 12 bits of a hash."""

Records = npt.NDArray[np.void]
"""Structured records of any dtype without objects."""

_NUMBER = np.dtype("<u8")


def prefixes(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The first 12 bits of 64-bit hashes, 0 ≤ prefix < `PREFIXES`."""
    return (hashes >> np.uint64(52)).astype(np.int64)


def write_run(file: Path, keys: npt.NDArray[np.int64], records: Records, num_keys: int) -> None:
    """Write records in the order of their keys, 0 ≤ key < num_keys; equal keys keep their order."""
    order = np.argsort(keys, kind="stable")
    offsets = np.zeros(num_keys + 1, _NUMBER)
    np.cumsum(np.bincount(keys, minlength=num_keys), out=offsets[1:])
    with file.open("wb") as stream:
        stream.write(np.array([num_keys], _NUMBER).tobytes())
        stream.write(offsets.tobytes())
        stream.write(records[order].tobytes())


def read_run(file: Path, dtype: np.dtype[np.void], begin: int, end: int) -> Records:
    """The records with begin ≤ key < end. Reads two offsets and those records."""
    with file.open("rb") as stream:
        num_keys = int(np.frombuffer(stream.read(8), _NUMBER)[0])
        first, last = (_offset(stream, key) for key in (begin, end))
        stream.seek(8 * (num_keys + 2) + first * dtype.itemsize)
        data = stream.read((last - first) * dtype.itemsize)
    return np.frombuffer(data, dtype)


def _offset(stream: object, key: int) -> int:
    stream.seek(8 * (key + 1))  # type: ignore[attr-defined]
    return int(np.frombuffer(stream.read(8), _NUMBER)[0])  # type: ignore[attr-defined]


def counts(file: Path) -> npt.NDArray[np.int64]:
    """The number of records of each key: int64, shape (num_keys,)."""
    with file.open("rb") as stream:
        num_keys = int(np.frombuffer(stream.read(8), _NUMBER)[0])
        offsets = np.frombuffer(stream.read(8 * (num_keys + 1)), _NUMBER)
    found: npt.NDArray[np.int64] = offsets[1:].astype(np.int64) - offsets[:-1].astype(np.int64)
    return found
