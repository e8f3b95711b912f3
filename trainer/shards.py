"""Prepared shards: what a row of one holds, and reading it.

A shard is an Arrow IPC file that is mapped into memory, so it is not compressed.
Imports no torch: the launcher writes these files, and a login node must be able to look at them.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recipes.errors import DataError

IGNORED = -100
"""Label of a token that the loss leaves out."""

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        # What is learnt, as the lengths of runs of tokens that are ignored and learnt in turn, the
        # first one ignored: a learnt token is its own label, so this is all there is to say, in a
        # few bytes a row. The first token of a sample is ignored. Empty for classification.
        ("runs", pa.list_(pa.int32())),
        # Tokens of each sample packed in this row; they sum up to len(input_ids).
        ("lengths", pa.list_(pa.int32())),
        # Id of each sample: (number of the input unit << 32) | row in the unit.
        ("samples", pa.list_(pa.int64())),
        # Of each sample the number of its source, a place in the manifest's `mixture`.
        ("sources", pa.list_(pa.int16())),
        # Supervised tokens of the row, that is those learnt; 1 for classification.
        ("supervised", pa.int32()),
        # Which of two texts each token belongs to, 0 or 1; empty where there is one text.
        ("token_types", pa.list_(pa.int8())),
        # Id of the label for classification; else -1.
        ("label", pa.int32()),
        # Ids of the labels, ascending, where a text may have several; else empty.
        ("label_set", pa.list_(pa.int32())),
        # Held-out rows of a recipe with evaluate.choices come once for each choice: the choice this
        # row ends with, and the choice that is right; else -1.
        ("choice", pa.int32()),
        ("answer", pa.int32()),
        # Where the row's images lie, paths or addresses; the trainer does not look at them.
        ("images", pa.list_(pa.string())),
    ]
)

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence; arrays are views into the mapped file."""

    input_ids: npt.NDArray[np.int32]
    runs: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    samples: npt.NDArray[np.int64]
    supervised: int
    label: int = -1
    choice: int = -1
    answer: int = -1
    sources: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    token_types: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    label_set: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Target of each position, aligned with input_ids, IGNORED where nothing is learnt; empty
        for classification. Made anew on each access."""
        learnt = learnt_of(self.runs)
        return np.where(learnt, self.input_ids[: len(learnt)], np.int32(IGNORED))


def learnt_of(runs: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Of each token whether it is learnt, from the lengths of runs."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def runs_of(labels: Sequence[int] | npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Lengths of the runs of labels that are IGNORED and are not, in turn."""
    learnt = np.asarray(labels, np.int32) != IGNORED
    if not len(learnt):
        return np.zeros(0, np.int32)
    edges = np.flatnonzero(np.diff(learnt)) + 1
    starts = [0] if learnt[0] else []
    return np.diff(np.concatenate([[0], starts, edges, [len(learnt)]])).astype(np.int32)


def _row(columns: Mapping[str, tuple[Numbers, Numbers | None]], place: int) -> Row:
    values: dict[str, Any] = {}
    for name, (numbers, offsets) in columns.items():
        if offsets is None:
            values[name] = int(numbers[place])
        else:
            values[name] = numbers[offsets[place] : offsets[place + 1]]
    return Row(**values)


class Shard:
    """The rows of one mapped file by their place in it."""

    def __init__(self, file: Path) -> None:
        """Map a file. Raises `DataError` when it is missing or torn."""
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"{file}: shard cannot be read: {error}. "
                f"Delete {file.parent.parent} to prepare it again"
            ) from error
        self._ends = list(accumulate(batch.num_rows for batch in batches))
        self._columns = [_columns(batch) for batch in batches]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, place: int) -> Row:
        number = bisect_right(self._ends, place)
        within = place - (self._ends[number - 1] if number else 0)
        return _row(self._columns[number], within)

    def sample_lengths(self) -> Numbers:
        """Tokens of each sample in the file: int32, shape (samples,). Reads nothing else."""
        parts = [columns["lengths"][0] for columns in self._columns]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def indexed(self) -> Iterator[dict[str, Numbers]]:
        """What the index keeps of the rows, part by part; a part's samples end in the part."""
        for columns in self._columns:
            tokens, samples = columns["input_ids"][1], columns["samples"][1]
            assert tokens is not None and samples is not None
            yield {
                "tokens": np.diff(tokens),
                "supervised": columns["supervised"][0],
                "sample_ends": samples[1:].astype(np.int64),
                "sample_ids": columns["samples"][0],
            }


def _columns(batch: pa.RecordBatch) -> dict[str, tuple[Numbers, Numbers | None]]:
    """Of each column of numbers a view of its values, and where those of a row begin in a list."""
    found: dict[str, tuple[Numbers, Numbers | None]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == "images":
            continue
        if pa.types.is_list(column.type):
            found[name] = (column.values.to_numpy(), column.offsets.to_numpy())
        else:
            found[name] = (column.to_numpy(), None)
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises `DataError` when there is none that can be read."""
    file = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(
            f"{file}: prepared data cannot be read: {error}. Delete {folder} to prepare it again"
        ) from error
    return manifest


def training_digest(manifest: Mapping[str, Any]) -> str:
    """sha256 of what is trained on: the training shards in their order (hex, 64 characters)."""
    shards = manifest["splits"]["train"]["shards"]
    return hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()
