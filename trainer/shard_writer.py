"""Writing prepared shards; what a row of one holds is told in trainer.shards. Imports no torch."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainer.shards import IGNORED, SCHEMA, runs_of

# Tokens from which a record batch is closed: what a writer holds in memory, about 10 MB.
_BATCH_TOKENS = 2**20

_LISTS = {
    leaf.name: np.dtype(leaf.type.value_type.to_pandas_dtype())
    for leaf in SCHEMA
    if pa.types.is_list(leaf.type) and leaf.name != "images"
}
_SINGLE = ("supervised", "label", "choice", "answer")
_EMPTY: Mapping[str, Sequence[int]] = {"token_types": (), "label_set": ()}
_IMAGES = SCHEMA.field("images").type


class BatchBuilder:
    """Gathers rows for one batch of `SCHEMA`, in the memory that their numbers take.

    A row has the columns of `SCHEMA`, or `labels` (int32, IGNORED or the token itself) for `runs`.
    What it lacks is as in a row with one text and no label, from the first source.
    """

    def __init__(self) -> None:
        self._lists = {name: array(dtype.char) for name, dtype in _LISTS.items()}
        self._ends = {name: array("i", [0]) for name in _LISTS}
        self._single = {name: array("i") for name in _SINGLE}
        self._images: list[Sequence[str]] = []

    def __len__(self) -> int:
        return len(self._images)

    @property
    def tokens(self) -> int:
        """Of all rows so far."""
        return len(self._lists["input_ids"])

    def add(self, row: Mapping[str, Any]) -> None:
        """Put a row behind those that are there."""
        for name, ends in self._ends.items():
            numbers = self._lists[name]
            values = row[name] if name in row else _what_it_lacks(row, name)
            if isinstance(values, np.ndarray):
                numbers.frombytes(values.astype(_LISTS[name]).tobytes())
            elif values:
                numbers.extend(values)
            ends.append(len(numbers))
        for name, single in self._single.items():
            single.append(row["supervised"] if name == "supervised" else row.get(name, -1))
        self._images.append(row.get("images", ()))

    def batch(self) -> pa.RecordBatch:
        """The rows in their order. No row can be added after it."""
        columns: dict[str, pa.Array] = {"images": pa.array(self._images, _IMAGES)}
        for name, single in self._single.items():
            columns[name] = pa.array(np.asarray(single))
        for name, ends in self._ends.items():
            columns[name] = list_array(np.asarray(ends), np.asarray(self._lists[name]))
        return batch_of(columns, len(self))


def batch_of(columns: Mapping[str, pa.Array], num_rows: int) -> pa.RecordBatch:
    """A batch of `SCHEMA`. Columns that are not given are empty lists, and -1."""
    found = []
    for leaf in SCHEMA:
        if leaf.name in columns:
            found.append(columns[leaf.name])
        elif pa.types.is_list(leaf.type):
            found.append(pa.array([[]] * num_rows, leaf.type))
        else:
            found.append(pa.array(np.full(num_rows, -1, np.int32)))
    return pa.record_batch(found, schema=SCHEMA)


def list_array(offsets: npt.NDArray[np.int32], values: npt.NDArray[Any]) -> pa.ListArray:
    """A column of lists: of each list where in `values` it begins, and behind them the end."""
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _what_it_lacks(row: Mapping[str, Any], name: str) -> Any:
    """What stands for a list that a row does not have."""
    if name == "runs":
        return _runs(row["input_ids"], row["labels"])
    return [0] * len(row["samples"]) if name == "sources" else _EMPTY[name]


def _runs(input_ids: Any, labels: Any) -> Any:
    lists = isinstance(labels, list) and isinstance(input_ids, list) and len(labels) > 1
    # As texts are: told from lists in a tenth of the time that the runs of a row take.
    if lists and labels[0] == IGNORED and labels[1:] == input_ids[1:]:
        return [1, len(labels) - 1]
    found = np.asarray(labels, np.int32)
    ids = np.asarray(input_ids[: len(found)], np.int32)
    assert np.all((found == IGNORED) | (found == ids)), "a label that is not its token"
    return runs_of(found)


def write_shard(file: Path, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Write rows as one shard; its entry for the manifest.

    For what a row is see `BatchBuilder`. Memory is that of about a million tokens, however many
    rows there are.
    """
    return write_batches(file, _batches(rows))


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[pa.RecordBatch]:
    """Batches of about a million tokens each."""
    builder = BatchBuilder()
    for row in rows:
        builder.add(row)
        if builder.tokens >= _BATCH_TOKENS:
            yield builder.batch()
            builder = BatchBuilder()
    if len(builder):
        yield builder.batch()


def batch_ends(tokens: npt.NDArray[np.int64]) -> list[int]:
    """Rows of so many tokens each, in batches as `write_shard` makes them: the end of each."""
    ends: list[int] = []
    after = np.cumsum(tokens)
    while (begin := ends[-1] if ends else 0) < len(tokens):
        before = after[begin - 1] if begin else 0
        ends.append(min(int(np.searchsorted(after, before + _BATCH_TOKENS)) + 1, len(tokens)))
    return ends


def write_batches(file: Path, batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
    """Write batches of `SCHEMA` as one shard; its entry for the manifest."""
    counts = {"rows": 0, "samples": 0, "tokens": 0, "supervised": 0}
    with file.open("wb") as stream:
        hashed = HashedFile(stream)
        with pa.PythonFile(hashed, mode="w") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch)
                counts["rows"] += batch.num_rows
                counts["samples"] += len(batch.column("samples").flatten())
                counts["tokens"] += len(batch.column("input_ids").flatten())
                counts["supervised"] += int(np.sum(batch.column("supervised").to_numpy()))
        size = stream.tell()
    return {"file": file.name, **counts, "bytes": size, "sha256": hashed.sha256}


class HashedFile:
    """A file open to write, whose digest is known as soon as it is written."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was written so far: hex, 64 characters."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Whoever opened the file closes it."""
