"""Reading a unit, whatever the kind of its file."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import pyarrow as pa

from launcher.prepare.reading.csv_file import csv_rows
from launcher.prepare.reading.json_file import json_rows
from launcher.prepare.reading.row import Failed, Found, RawRow
from launcher.prepare.reading.tables import arrow_rows, parquet_rows
from launcher.prepare.reading.text_rows import json_lines, text_lines
from launcher.prepare.sources.file_kinds import Kind
from launcher.prepare.sources.places import told
from launcher.prepare.sources.source import Unit, check_unchanged

_READERS: Mapping[Kind, Callable[[Unit], Iterator[Found]]] = {
    "json_lines": json_lines,
    "json": json_rows,
    "csv": csv_rows,
    "tsv": csv_rows,
    "text": text_lines,
    "parquet": parquet_rows,
    "arrow": arrow_rows,
}


class Rows:
    """The rows of a unit in the file's order, read while one iterates, once.

    What is held in memory is a block of the file (1 MiB, of remote ones 8) and one row of at most
    `LONGEST_ROW_BYTES` in its making; of parquet files pages of about 4 MiB of rows and what the
    writer put into one page of each column; of Arrow files that are compressed or remote, one
    record batch. Blank lines are no rows, but are counted in the numbers of the rows.

    Iterating raises `DataError` for a file that is damaged, cut off, or was changed since it was
    found; nothing of it should be used then, also of the rows before the damage.
    """

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.lines = 0
        """How far the numbers have come, those of blank lines included."""

    def __iter__(self) -> Iterator[RawRow]:
        if self.unit.rows == 0:
            return
        source = self.unit.source
        with told(source.address):
            try:
                yield from islice(self._rows(), self.unit.rows)
            except (OSError, EOFError, ValueError, IndexError, zlib.error, pa.ArrowException):
                check_unchanged(source)  # a file that was replaced looks damaged
                raise
            check_unchanged(source)

    def _rows(self) -> Iterator[RawRow]:
        for found in _READERS[self.unit.source.kind](self.unit):
            number = self.lines
            self.lines += 1
            if found is not None:
                yield _row(number, found)


def read(unit: Unit) -> Rows:
    """The rows of a unit, to iterate over."""
    return Rows(unit)


def _row(number: int, found: dict[str, object] | Failed) -> RawRow:
    if isinstance(found, Failed):
        reason, detail, raw = found.reason, found.detail, found.raw
        return RawRow(number=number, reason=reason, detail=detail, raw=raw)
    return RawRow(number=number, columns=found)
