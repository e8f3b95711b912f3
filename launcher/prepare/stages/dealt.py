"""Tokenised samples of a unit dealt to groups: written as they come, read group by group.

What is packed is cut into few parts, so a unit may be of any size. Its rows are not all held: those
that are there become a round of record batches, one for each group. The batches of a group, one
after another, are the same rows in the same order however many rounds there were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from recipes.files import whole_path
from trainer.shard_writer import BatchBuilder
from trainer.shards import SCHEMA

# About 64 MiB of rows: a token takes 4 bytes, all else of a row as much as 24 tokens.
_HELD_TOKENS = 2**24
_TOKENS_OF_ROW = 24
_GROUPS = b"groups"


class DealtRows:
    """The rows of one file that is being written, see `dealing`."""

    def __init__(self, writer: pa.RecordBatchFileWriter, num_groups: int, held_tokens: int) -> None:
        self._writer = writer
        self._num_groups = num_groups
        self._most = held_tokens
        self._begin_round()

    def add(self, group: int, row: Mapping[str, Any]) -> None:
        """Put a row, as `BatchBuilder` takes it, behind those of its group."""
        self._groups[group].add(row)
        self._held += len(row["input_ids"]) + _TOKENS_OF_ROW
        if self._held >= self._most:
            self.end_round()

    def end_round(self) -> None:
        """Write what is held."""
        for rows in self._groups:
            self._writer.write_batch(rows.batch())
        self._begin_round()

    def _begin_round(self) -> None:
        self._groups = [BatchBuilder() for _ in range(self._num_groups)]
        self._held = 0


@contextmanager
def dealing(file: Path, num_groups: int, held_tokens: int = _HELD_TOKENS) -> Iterator[DealtRows]:
    """A file to deal rows to, which is there once the context has ended well. Rows of about
    `held_tokens` tokens are held before a round is written."""
    schema = SCHEMA.with_metadata({_GROUPS: str(num_groups)})
    with (
        whole_path(file) as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        rows = DealtRows(writer, num_groups, held_tokens)
        yield rows
        rows.end_round()


def read_group(file: Path, group: int) -> pa.RecordBatch:
    """All rows of a group; mapped into memory where they are of one round, else copied."""
    reader = pa.ipc.open_file(pa.memory_map(str(file)))
    num_groups = int(reader.schema.metadata[_GROUPS])
    numbers = range(group, reader.num_record_batches, num_groups)
    rounds = [reader.get_batch(number).replace_schema_metadata() for number in numbers]
    return rounds[0] if len(rounds) == 1 else pa.concat_batches(rounds)
