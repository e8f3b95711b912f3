"""The same rows as files of every kind, and what is read of files."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from launcher.prepare.reading import RawRow, read
from launcher.prepare.sources.source import find_sources
from launcher.prepare.sources.units import units
from recipes.data import Data, Source

Row = dict[str, Any]


def read_all(
    *sources: str | Source, unit_bytes: int = 2**25, cache: Path = Path("/none")
) -> list[RawRow]:
    """Every row of what `data.train` names, unit by unit."""
    specs = [Source(path=one) if isinstance(one, str) else one for one in sources]
    parts = units(find_sources(Data(train=specs), Path("/none")), unit_bytes)
    return [row for unit in parts for row in read(unit)]


def columns_of(rows: Sequence[RawRow]) -> list[Row]:
    """The columns of rows, none of which has failed."""
    assert [row for row in rows if row.columns is None] == []
    return [row.columns for row in rows if row.columns is not None]


def _jsonl(rows: Sequence[Row], file: Path) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _json(rows: Sequence[Row], file: Path) -> None:
    file.write_text(json.dumps(rows, indent=1))


def _json_data(rows: Sequence[Row], file: Path) -> None:
    about = {"version": "v2", "about": {"of": ['a]\\"', {}]}, "data": rows, "more": 1}
    file.write_text(json.dumps(about, ensure_ascii=False))


def _csv(rows: Sequence[Row], file: Path) -> None:
    with file.open("w", newline="") as stream:
        delimiter = "\t" if file.suffix == ".tsv" else ","
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def _parquet(rows: Sequence[Row], file: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), file, row_group_size=7)


def _arrow_file(rows: Sequence[Row], file: Path) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def _arrow_stream(rows: Sequence[Row], file: Path) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def _text(rows: Sequence[Row], file: Path) -> None:
    file.write_text("".join(row["text"] + "\n\n" for row in rows))


WRITERS: dict[str, Callable[[Sequence[Row], Path], None]] = {
    "rows.jsonl": _jsonl,
    "rows.ndjson": _jsonl,
    "rows.json": _json,
    "data.json": _json_data,
    "rows.csv": _csv,
    "rows.tsv": _csv,
    "rows.parquet": _parquet,
    "rows.feather": _arrow_file,
    "rows.arrow": _arrow_stream,
    "rows.txt": _text,
}
"""Writes rows into a file of that name."""

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    # As `cat` or a writer of blocks leaves them: of several members, or frames.
    ".gz": lambda content: gzip.compress(content[:99]) + gzip.compress(content[99:]),
    ".zst": lambda content: _zstd(content[:99]) + _zstd(content[99:]),
}


def _zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content))


def write(rows: Sequence[Row], folder: Path, name: str, packing: str = "") -> Path:
    """Rows as a file of a kind, packed or not."""
    file = folder / name
    WRITERS[name](rows, file)
    packed = file.with_name(name + packing)
    packed.write_bytes(PACKERS[packing](file.read_bytes()))
    if packing:
        file.unlink()
    return packed
