"""The last stage: a group of tokenised samples becomes a shard, several samples in a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from launcher.prepare.context import Context
from launcher.prepare.packing import pack
from launcher.prepare.stage import Report
from launcher.prepare.tokenized import tokens_file
from recipes.files import whole_path
from trainer.shards import Row, rows_of, write_batches, write_shard

FOLDER = "pack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """One shard to make: a group of the units of a block."""

    number: int
    """Of the shard in its split."""
    split: str
    units: tuple[int, ...]
    group: int


def pack_group(part: Packing, context: Context) -> Report:
    """Write one shard, unless its group is empty; memory: about three times its bytes."""
    batches = [_batch(context, unit, part) for unit in part.units]
    if not any(batch.num_rows for batch in batches):
        return {"split": part.split, "shard": None, "files": []}
    folder = context.root / part.split
    folder.mkdir(exist_ok=True)
    file = folder / f"shard_{part.number:05d}.arrow"
    with whole_path(file) as aside:
        if context.recipe.data.packing:
            entry = write_shard(aside, _packed(batches, context.recipe.data.sequence_length))
        else:
            entry = write_batches(aside, (batch for batch in batches if batch.num_rows))
    return {
        "split": part.split,
        "shard": entry | {"file": file.name},
        "files": context.named(file),
    }


def _batch(context: Context, unit: int, part: Packing) -> pa.RecordBatch:
    file = tokens_file(context, unit, part.split)
    return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(part.group)


def _packed(batches: Sequence[pa.RecordBatch], sequence_length: int) -> Iterator[dict[str, Any]]:
    rows = [row for batch in batches for row in rows_of(batch)]
    alone = [row for row in rows if row.choice >= 0]
    together = [row for row in rows if row.choice < 0]
    for members in pack([len(row.input_ids) for row in together], sequence_length):
        yield _joined([together[index] for index in members])
    for row in alone:
        yield _joined([row])


def _joined(rows: Sequence[Row]) -> dict[str, Any]:
    names = ("input_ids", "labels", "lengths", "samples", "sources")
    return {
        **{name: np.concatenate([getattr(row, name) for row in rows]) for name in names},
        "supervised": sum(row.supervised for row in rows),
        "choice": rows[0].choice,
        "answer": rows[0].answer,
    }


def padding(shards: Sequence[dict[str, Any]], sequence_length: int) -> float:
    """The share of positions that hold no token, were every row filled up to its length."""
    positions = sum(shard["rows"] for shard in shards) * sequence_length
    tokens = sum(shard["tokens"] for shard in shards)
    return 1 - tokens / positions if positions else 0.0
