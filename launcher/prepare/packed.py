"""The last stage: a group of tokenised samples becomes a shard, several samples in a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from launcher.prepare.context import Context
from launcher.prepare.packing import pack
from launcher.prepare.stage import Report
from launcher.prepare.tokenized import tokens_file
from recipes.files import whole_path
from trainer.shards import Row, batches_of, rows_of, write_batches

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
        data = context.recipe.data
        found = _packed(batches, data.sequence_length) if data.packing else iter(batches)
        entry = write_batches(aside, (batch for batch in found if batch.num_rows))
    return {
        "split": part.split,
        "shard": entry | {"file": file.name},
        "files": context.named(file),
    }


def _batch(context: Context, unit: int, part: Packing) -> pa.RecordBatch:
    file = tokens_file(context, unit, part.split)
    return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(part.group)


def _packed(batches: Sequence[pa.RecordBatch], sequence_length: int) -> Iterator[pa.RecordBatch]:
    """The samples several in a row, then those that stay alone as they are."""
    alone = [_is_alone(batch) for batch in batches]
    rows = [
        row
        for batch, is_alone in zip(batches, alone, strict=True)
        for row in rows_of(batch.filter(pc.invert(is_alone)))
    ]
    packs = pack([len(row.input_ids) for row in rows], sequence_length)
    yield from batches_of(_joined([rows[index] for index in members]) for members in packs)
    yield from (batch.filter(is_alone) for batch, is_alone in zip(batches, alone, strict=True))


def _is_alone(batch: pa.RecordBatch) -> pa.BooleanArray:
    """Of each row whether it shares a sequence with no other: one of several choices, and one with
    images, which belong to the whole row."""
    has_images = pc.greater(pc.list_value_length(batch.column("images")), 0)
    return pc.or_(pc.greater_equal(batch.column("choice"), 0), has_images)


def _joined(rows: Sequence[Row]) -> dict[str, Any]:
    names = ("input_ids", "labels", "lengths", "samples", "sources")
    return {
        **{name: np.concatenate([getattr(row, name) for row in rows]) for name in names},
        "supervised": sum(row.supervised for row in rows),
    }


def padding(shards: Sequence[dict[str, Any]], sequence_length: int) -> float:
    """The share of positions that hold no token, were every row filled up to its length."""
    positions = sum(shard["rows"] for shard in shards) * sequence_length
    tokens = sum(shard["tokens"] for shard in shards)
    return 1 - tokens / positions if positions else 0.0
