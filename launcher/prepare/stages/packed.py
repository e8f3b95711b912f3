"""The last stage: a group of tokenised samples becomes a shard, several samples in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from launcher.prepare.stages.context import Context
from launcher.prepare.stages.dealt import read_group
from launcher.prepare.stages.packing import packed
from launcher.prepare.stages.stage import Report
from launcher.prepare.stages.tokenized import tokens_file
from recipes.files import whole_path
from trainer.shard_writer import write_batches

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
        found = packed(batches, data.sequence_length) if data.packing else iter(batches)
        entry = write_batches(aside, (batch for batch in found if batch.num_rows))
    return {
        "split": part.split,
        "shard": entry | {"file": file.name},
        "files": context.named(file),
    }


def _batch(context: Context, unit: int, part: Packing) -> pa.RecordBatch:
    return read_group(tokens_file(context, unit, part.split), part.group)


def padding(shards: Sequence[dict[str, Any]], sequence_length: int) -> float:
    """The share of positions that hold no token, were every row filled up to its length."""
    positions = sum(shard["rows"] for shard in shards) * sequence_length
    tokens = sum(shard["tokens"] for shard in shards)
    return 1 - tokens / positions if positions else 0.0
