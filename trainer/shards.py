"""Prepared shards: what a row of one holds, and reading any row of any shard by its index.

A split (`train` or `held_out`) is a folder of Arrow IPC files named by its manifest. They are
mapped into memory, so a rank that starts reads nothing but the column it needs for its index.
Imports no torch: the launcher writes these files, and a login node must be able to look at them.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
        # Target of each position, aligned with input_ids; IGNORED where nothing is learnt, always
        # at the first token of a sample. Empty for classification.
        ("labels", pa.list_(pa.int32())),
        # Tokens of each sample packed in this row; they sum up to len(input_ids).
        ("lengths", pa.list_(pa.int32())),
        # Id of each sample: (number of the input unit << 32) | row in the unit.
        ("samples", pa.list_(pa.int64())),
        # Supervised tokens of the row, that is labels that are not IGNORED; 1 for classification.
        ("supervised", pa.int32()),
        # Id of the label for classification; else -1.
        ("label", pa.int32()),
        # Held-out rows of a recipe with evaluate.choices come once for each choice: the choice this
        # row ends with, and the choice that is right; else -1.
        ("choice", pa.int32()),
        ("answer", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence; arrays are int32 views into the mapped file (samples int64)."""

    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    samples: npt.NDArray[np.int64]
    supervised: int
    label: int
    choice: int
    answer: int


class Split:
    """Rows of one split by index, 0 ≤ index < len(split), in the order of the manifest's shards."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self._tables = tables
        # By shard: where each row's ids begin, and all ids; views into the mapped file.
        self._sample_ids: dict[int, tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]] = {}
        self._ends = list(accumulate(table.num_rows for table in tables))
        columns = [table.column("supervised").to_numpy() for table in tables]
        self.supervised: npt.NDArray[np.int32] = (
            np.concatenate(columns) if columns else np.zeros(0, np.int32)
        )
        """Supervised tokens of every row: int32, shape (rows,)."""

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        shard, within = self._find(index)
        return _row(self._tables[shard].slice(within, 1))

    def samples(self, index: int) -> list[int]:
        """Ids of the samples in a row.

        Rank 0 asks for every row of the global batch in each step while all others wait, so this
        looks up two offsets and no more: 4 ms for 4,096 rows, where the table's own way takes 12.
        """
        shard, within = self._find(index)
        if shard not in self._sample_ids:
            column = self._tables[shard].column("samples").combine_chunks()
            self._sample_ids[shard] = (
                column.offsets.to_numpy(),
                column.values.to_numpy(),
            )
        offsets, ids = self._sample_ids[shard]
        found: list[int] = ids[offsets[within] : offsets[within + 1]].tolist()
        return found

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        shard = bisect_right(self._ends, index)
        first = self._ends[shard - 1] if shard else 0
        return shard, index - first


def _row(table: pa.Table) -> Row:
    def array(name: str) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = table.column(name).combine_chunks().flatten().to_numpy()
        return values

    def number(name: str) -> int:
        return int(table.column(name)[0].as_py())

    return Row(
        input_ids=array("input_ids"),
        labels=array("labels"),
        lengths=array("lengths"),
        samples=array("samples"),
        supervised=number("supervised"),
        label=number("label"),
        choice=number("choice"),
        answer=number("answer"),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises `DataError` when there is none that can be read."""
    file = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: prepared data cannot be read: {error}") from error
    return manifest


def training_digest(manifest: Mapping[str, Any]) -> str:
    """sha256 of what is trained on: the training shards in their order (hex, 64 characters)."""
    shards = manifest["splits"]["train"]["shards"]
    return hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()


def open_split(folder: Path, split: str) -> Split:
    """Map the shards of `train` or `held_out` in a prepared folder."""
    manifest: Mapping[str, Any] = read_manifest(folder)["splits"][split]
    return Split([open_shard(folder / split / shard["file"]) for shard in manifest["shards"]])


def open_shard(file: Path) -> pa.Table:
    """One shard mapped into memory."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{file}: shard cannot be read: {error}. "
            f"Delete {file.parent.parent} to prepare it again"
        ) from error


def write_shard(file: Path, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Write rows (the columns of `SCHEMA`) as one shard; its entry for the manifest."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(table)
    return {
        "file": file.name,
        "rows": table.num_rows,
        "samples": sum(len(ids) for ids in table.column("samples")),
        "tokens": sum(len(ids) for ids in table.column("input_ids")),
        "supervised": int(np.sum(table.column("supervised").to_numpy())),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
