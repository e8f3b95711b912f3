"""Rows of csv and tsv files, in the order of their records."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence

from launcher.prepare.reading.lines import lines
from launcher.prepare.reading.row import LONGEST_ROW_BYTES, Failed, Found, failed
from launcher.prepare.reading.streams import open_stream
from launcher.prepare.sources.source import Unit
from launcher.prepare.unusable import with_remedy


def csv_rows(unit: Unit) -> Iterator[Found]:
    """The records below the header, as columns of text; those before the unit are passed over.

    A record that is none, such as one whose quote is never closed, costs its first line: reading
    goes on with the line after. Raises `ValueError` for a header that cannot be one.
    """
    csv.field_size_limit(2**31 - 1)  # records are bounded by the lines they are made of
    delimiter = "\t" if unit.source.kind == "tsv" else ","
    with open_stream(unit.source) as stream:
        feed = _Feed(lines(stream))
        records = _records(feed, csv.reader(feed, delimiter=delimiter, strict=True))
        names: Sequence[str] | None = None
        for place, record in records:
            if unit.end and place >= unit.end:
                return
            if names is None and record is not None:
                names = _header(record)
            elif names is not None and place >= unit.begin:
                yield _row(record, names, feed)


def _header(record: list[str] | Failed) -> Sequence[str]:
    if isinstance(record, Failed):
        what = f"{record.reason} {record.detail}".strip()
        raise ValueError(f"its header is no line of csv: {what}{with_remedy(record.reason)}")
    names = [name or f"column_{number}" for number, name in enumerate(record, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"its header names {', '.join(twice)} more than once")
    return names


def _row(record: list[str] | Failed | None, names: Sequence[str], feed: _Feed) -> Found:
    if record is None or isinstance(record, Failed):
        return record
    if len(record) != len(names):
        detail = f"{len(record)} fields; the header names {len(names)}"
        return failed("not a row", detail, feed.content())
    return dict(zip(names, record, strict=True))


# What a line takes beside its characters while a record is held.
_LINE_BYTES = 64


class _LongError(Exception):
    """A record of more than the longest row's bytes."""


class _Feed:
    """Lines for the csv module, which remembers those of the present record."""

    def __init__(self, found: Iterator[bytes | Failed]) -> None:
        self._found = found
        self._again: deque[bytes | Failed] = deque()
        self._record: list[bytes] = []
        self._size = 0
        self.place = 0
        """Where the next line begins: the same for whoever reads the file, in bytes unless a line
        before it was too long."""
        self.is_text = True

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._found)
        if isinstance(line, Failed) or self._size + len(line) > LONGEST_ROW_BYTES:
            self._again.appendleft(line)
            raise _LongError
        self._record.append(line)
        self._size += len(line) + _LINE_BYTES
        self.place += len(line) + 1
        try:
            return line.decode("utf-8") + "\n"
        except UnicodeDecodeError:
            self.is_text = False
            return line.decode("utf-8", "replace") + "\n"

    def begin(self) -> None:
        """The next line begins a record."""
        self._record, self._size, self.is_text = [], 0, True

    def content(self) -> bytes:
        """The lines of the present record."""
        return b"\n".join(self._record)

    def give_back(self) -> bytes | Failed:
        """Take the present record's first line for all of it; the others will be read again."""
        if not self._record:
            self.place += 1
            return self._again.popleft()
        first, *others = self._record
        self._again.extendleft(reversed(others))
        self.place -= sum(len(line) + 1 for line in others)
        return first


def _records(
    feed: _Feed, reader: Iterator[list[str]]
) -> Iterator[tuple[int, list[str] | Failed | None]]:
    """The place where each record begins, and the record; None for a blank line."""
    while True:
        feed.begin()
        place = feed.place
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, _LongError) as error:
            line = feed.give_back()
            if isinstance(line, Failed):
                yield place, line
            elif isinstance(error, _LongError) or "unexpected end" in str(error):
                yield place, failed("quote never closed", "the record would go on to the end", line)
            else:
                yield place, failed("not csv", error, line)
            continue
        if not feed.is_text:
            yield place, failed("not UTF-8", "", feed.content())
        else:
            yield place, (fields if any(fields) or len(fields) > 1 else None)
