"""The ledger: which samples each step consumed.

Every attempt of a run appends to a file of its own, `ledger/attempt_0001.jsonl`, so nothing that
was written is ever changed, and two attempts never write to the same file. Its first line says
after which step the attempt went on; later attempts replace the steps of earlier ones from there.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, overload

from recipes.errors import DataError, StorageError

# How the line of a step begins; its number follows.
_BEGINNING = b'{"step":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one step consumed: its rows in order, and the ids of the samples packed in each."""

    step: int  # counted from 1
    batch: int  # counted from 0; differs from step - 1 once a batch was skipped
    rows: Sequence[int]
    samples: Sequence[Sequence[int]]


class Ledger:
    """The file of one attempt, open to append."""

    def __init__(self, folder: Path, *, resume_after: int, num_rows: int) -> None:
        """Begin the next attempt's file. `num_rows` are in one epoch."""
        folder.mkdir(parents=True, exist_ok=True)
        number = len(_files(folder)) + 1
        self._file = folder / f"attempt_{number:04d}.jsonl"
        try:
            self._stream = self._file.open("x", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{self._file}: cannot be made: {error}") from error
        self._write({"attempt": number, "after_step": resume_after, "num_rows": num_rows})

    def append(self, entry: Entry) -> None:
        self._write(
            {
                "step": entry.step,
                "batch": entry.batch,
                "rows": list(entry.rows),
                "samples": [list(ids) for ids in entry.samples],
            }
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._stream.flush()
        except OSError as error:
            raise StorageError(f"{self._file}: cannot be written: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a run's ledger comes to."""

    entries: Sequence[Entry]
    """The steps of the run's one curve, in order, whatever number of attempts it took."""
    num_rows: int
    """Rows in one epoch."""
    attempts: int
    redone: int
    """Steps that a later attempt did again."""


class Entries(Sequence[Entry]):
    """Steps as they lie in the files, read when they are asked for.

    A long run of many workers has seen tens of millions of rows: as Python's numbers they would
    take gigabytes. What is kept of a step is where its line begins.
    """

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._steps = array("q")
        self._file_of = array("l")
        self._offsets = array("q")

    def add(self, file: Path, after_step: int, steps: Iterable[tuple[int, int]]) -> int:
        """Take the numbers and places of one attempt's steps: how many it has done again."""
        kept = bisect_right(self._steps, after_step)
        dropped = len(self._steps) - kept
        for column in (self._steps, self._file_of, self._offsets):
            del column[kept:]
        self._files.append(file)
        for step, offset in steps:
            self._steps.append(step)
            self._file_of.append(len(self._files) - 1)
            self._offsets.append(offset)
        return dropped

    def missing(self) -> int | None:
        """The first step that is not there, though a later one is."""
        return next((n for n, step in enumerate(self._steps, start=1) if step != n), None)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Entry]:
        return self._read(range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return list(self._read(range(len(self))[index]))
        return next(self._read([range(len(self))[index]]))

    def _read(self, places: Iterable[int]) -> Iterator[Entry]:
        for number, run in groupby(places, lambda place: self._file_of[place]):
            with self._files[number].open("rb") as stream:
                for place in run:
                    if stream.tell() != self._offsets[place]:
                        stream.seek(self._offsets[place])
                    yield Entry(**json.loads(stream.readline()))


def read_ledger(folder: Path) -> Account:
    """All attempts put together. Raises `DataError` when a step is missing."""
    entries = Entries()
    num_rows = attempts = redone = 0
    for file in _files(folder):
        header = _header(file)
        if header is None:
            continue  # killed before its first line was written
        num_rows = header["num_rows"]
        attempts += 1
        redone += entries.add(file, header["after_step"], _places(file))
    missing = entries.missing()
    if missing is not None:
        raise DataError(f"{folder}: step {missing} is missing from the ledger")
    return Account(entries=entries, num_rows=num_rows, attempts=attempts, redone=redone)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("attempt_*.jsonl"))


def _header(file: Path) -> dict[str, Any] | None:
    """The first line of an attempt, or None when it was cut off."""
    with file.open("rb") as stream:
        line = stream.readline()
    header: dict[str, Any] | None = json.loads(line) if _is_whole(line) else None
    return header


def _places(file: Path) -> Iterator[tuple[int, int]]:
    """Number and place (bytes) of each step of an attempt; a last one that was cut off is left out.
    Of a line no more than its beginning is taken apart."""
    with file.open("rb") as stream:
        place = len(stream.readline())
        for line in stream:
            if not _is_whole(line):
                return
            yield int(line[len(_BEGINNING) : line.index(b",")]), place
            place += len(line)


def _is_whole(line: bytes) -> bool:
    return line.endswith((b"}\n", b"}"))
