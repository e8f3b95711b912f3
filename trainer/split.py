"""All rows of a split, any of them by its index.

A split (`train` or `held_out`) is a folder of shards named by its manifest, and beside them what is
asked of all rows at once. A rank that starts reads no shard, and one that seeks maps the shards of
the rows it wants, so any position of 10,000 shards costs what the first one costs.
Imports no torch, as a login node must be able to look at what is prepared.
"""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recipes.errors import DataError
from trainer.shard_writer import HashedFile
from trainer.shards import Numbers, Row, Shard, read_manifest

# Mapped at once. Each costs address space and some 10 KB of Python, no file handle; Linux lets a
# process have 65,530 maps.
_MAPPED_SHARDS = 4096
# Columns of the index up to this size are read whole: rows in random order would be page by page.
_READ_WHOLE_BYTES = 2**28

SPLITS = ("train", "held_out")
"""The splits of prepared data; each has a folder of its name."""

_INDEX: Mapping[str, np.dtype[Any]] = {
    "tokens": np.dtype(np.int32),
    "supervised": np.dtype(np.int32),
    "sample_ends": np.dtype(np.int64),
    "sample_ids": np.dtype(np.int64),
}
"""What is known of all rows without a look into shards: `<name>.npy` beside them, of shape (rows,).
The ids of the samples alone are (samples,); those of row r end at sample_ends[r]."""


class Split:
    """Rows of one split by index, 0 ≤ index < len(split), in the order of the manifest's shards."""

    def __init__(self, folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
        """The rows of the shards with these entries in the manifest. Raises `DataError` when their
        index is missing or another's."""
        self._files = [folder / shard["file"] for shard in shards]
        self._ends = list(accumulate(shard["rows"] for shard in shards))
        self._mapped: dict[int, Shard] = {}
        self._lock = threading.Lock()
        index = {name: _read_column(folder, name) for name in _INDEX}
        self.supervised: npt.NDArray[np.int32] = index["supervised"]
        """Supervised tokens of every row: int32, shape (rows,)."""
        self.tokens: npt.NDArray[np.int32] = index["tokens"]
        """Tokens of every row: int32, shape (rows,)."""
        self._sample_ends = index["sample_ends"]
        self._sample_ids = index["sample_ids"]
        if not len(self) == len(self.supervised) == len(self.tokens) == len(self._sample_ends):
            raise DataError(
                f"{folder}: its index is of {len(self.tokens)} rows, its shards have {len(self)}. "
                f"Delete {folder.parent} to prepare it again"
            )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        self._check(index)
        number = bisect_right(self._ends, index)
        return self._shard(number)[index - (self._ends[number - 1] if number else 0)]

    def samples(self, index: int) -> list[int]:
        """Ids of the samples in a row; reads no shard.

        Rank 0 asks for every row of the global batch in each step while all others wait, and rows
        of one batch lie in as many shards as there are.
        """
        self._check(index)
        begin = self._sample_ends[index - 1] if index else 0
        found: list[int] = self._sample_ids[begin : self._sample_ends[index]].tolist()
        return found

    def rows_with(self, sample: int) -> list[int]:
        """The rows that hold a sample, by its id; looks through all of the index."""
        places = np.flatnonzero(self._sample_ids == sample)
        rows: list[int] = np.unique(np.searchsorted(self._sample_ends, places, "right")).tolist()
        return rows

    @property
    def samples_per_row(self) -> npt.NDArray[np.int64]:
        """How many samples each row holds: int64, shape (rows,)."""
        return np.diff(self._sample_ends, prepend=0)

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")

    def _shard(self, number: int) -> Shard:
        """A shard by its number. Of those used longest ago the map is given back."""
        with self._lock:  # a rank reads ahead in a thread
            shard = self._mapped.pop(number, None)
            if shard is None:
                shard = Shard(self._files[number])
            self._mapped[number] = shard  # the last of them now
            if len(self._mapped) > _MAPPED_SHARDS:
                del self._mapped[next(iter(self._mapped))]
            return shard


def open_split(folder: Path, split: str) -> Split:
    """The rows of `train` or `held_out` in a prepared folder; maps no shard yet."""
    return Split(folder / split, read_manifest(folder)["splits"][split]["shards"])


def write_index(folder: Path, shards: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Put the index beside the shards of a split, which are given by their entries for the
    manifest; the sha256 of its files by their names. Memory is that of a part of a shard."""
    rows, samples = _counts(shards)
    with ExitStack() as stack:
        files = {
            name: HashedFile(stack.enter_context(_file(folder, name).open("wb"))) for name in _INDEX
        }
        for name, file in files.items():
            _write_header(file, name, rows, samples)
        end = 0
        for shard in shards:
            for part in Shard(folder / shard["file"]).indexed():
                part["sample_ends"] += end
                end = int(part["sample_ends"][-1])
                for name, file in files.items():
                    file.write(part[name].astype(_INDEX[name]).tobytes())
    return {_file(folder, name).name: file.sha256 for name, file in files.items()}


def index_bytes(shards: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The bytes of each file of the index of shards with these entries, by its name."""
    rows, samples = _counts(shards)
    found = {}
    for name, dtype in _INDEX.items():
        header = io.BytesIO()
        [count] = _write_header(header, name, rows, samples)
        found[f"{name}.npy"] = len(header.getvalue()) + count * dtype.itemsize
    return found


def _counts(shards: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    return sum(shard["rows"] for shard in shards), sum(shard["samples"] for shard in shards)


def _write_header(stream: Any, name: str, rows: int, samples: int) -> tuple[int]:
    """The beginning of a column's file: the shape of the column."""
    shape = (samples if name == "sample_ids" else rows,)
    header = {"descr": _INDEX[name].str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return shape


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _read_column(folder: Path, name: str) -> Numbers:
    file = _file(folder, name)
    try:
        is_large = file.stat().st_size > _READ_WHOLE_BYTES
        found: Numbers = np.load(file, mmap_mode="r" if is_large else None)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read: {error}. Delete {folder.parent} to prepare it again"
        ) from error
    return found
