"""The rows of one unit, and those that are none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from launcher.prepare.sources import Unit
from recipes.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One row: its number within the unit, and either its columns or the reason it has none."""

    number: int
    columns: dict[str, Any] | None = None
    reason: str = ""
    detail: str = ""
    text: str = ""

    @property
    def raw(self) -> bytes:
        return self.text.encode()


def read(unit: Unit) -> Iterator[RawRow]:
    """The rows of a unit in the file's order. Blank lines are no rows, but are counted as lines."""
    return _READERS[unit.source.path.suffix](unit)


def _lines(unit: Unit) -> Iterator[tuple[int, bytes]]:
    """The lines that begin within the unit, without their ends."""
    with unit.source.path.open("rb") as stream:
        if unit.begin > 0:
            # Whatever comes before the first line that begins here belongs to the unit before.
            stream.seek(unit.begin - 1)
            stream.readline()
        number = 0
        while stream.tell() < unit.end:
            line = stream.readline()
            if number == 0 and unit.begin == 0:
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line.rstrip(b"\r\n")
            number += 1


def _text_lines(unit: Unit) -> Iterator[RawRow]:
    for number, line in _lines(unit):
        if not line.strip():
            continue
        try:
            yield RawRow(number=number, columns={"text": line.decode("utf-8")})
        except UnicodeDecodeError as error:
            yield _not_utf8(number, line, error)


def _json_lines(unit: Unit) -> Iterator[RawRow]:
    for number, line in _lines(unit):
        if not line.strip():
            continue
        try:
            yield _columns(number, json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            yield _not_utf8(number, line, error)
        except json.JSONDecodeError as error:
            text = line.decode("utf-8")[:200]
            yield RawRow(number=number, reason="not JSON", detail=str(error), text=text)


def _not_utf8(number: int, line: bytes, error: UnicodeDecodeError) -> RawRow:
    text = line[:200].decode("utf-8", "replace")
    return RawRow(number=number, reason="not UTF-8", detail=str(error), text=text)


def _columns(number: int, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(number=number, columns=value)
    detail = f"a {type(value).__name__} where an object with columns was expected"
    return RawRow(number=number, reason="not a row", detail=detail, text=str(value)[:200])


def _json(unit: Unit) -> Iterator[RawRow]:
    path = unit.source.path
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: is not JSON: {error}. One object per line belongs into a .jsonl file"
        ) from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds a {type(rows).__name__}, not a list of rows")
    for number, value in enumerate(rows):
        yield _columns(number, value)


def _csv(unit: Unit) -> Iterator[RawRow]:
    text = unit.source.path.read_bytes().decode("utf-8-sig", "surrogateescape")
    csv.field_size_limit(2**31 - 1)
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline=""))):
        joined = "".join(str(value) for value in row.values())
        if None in row:
            yield RawRow(number=number, reason="not a row", detail="more fields than columns")
        elif any("\ud800" <= character <= "\udfff" for character in joined):
            yield RawRow(number=number, reason="not UTF-8")
        else:
            yield RawRow(number=number, columns=dict(row))


def _parquet(unit: Unit) -> Iterator[RawRow]:
    with pq.ParquetFile(unit.source.path) as file:
        number = 0
        for group in range(unit.begin, unit.end):
            for row in file.read_row_group(group).to_pylist():
                yield RawRow(number=number, columns=row)
                number += 1


_READERS = {
    ".jsonl": _json_lines,
    ".txt": _text_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
