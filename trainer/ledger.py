"""The ledger: which samples each step consumed.

Every attempt of a run appends to a file of its own, `ledger/attempt_0001.jsonl`, so nothing that
was written is ever changed, and two attempts never write to the same file. Its first line says
after which step the attempt went on; later attempts replace the steps of earlier ones from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.errors import DataError, StorageError


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


def read_ledger(folder: Path) -> Account:
    """All attempts put together. Raises `DataError` when a step is missing."""
    entries: list[Entry] = []
    num_rows = attempts = redone = 0
    for file in _files(folder):
        lines = _lines(file)
        header = next(lines, None)
        if header is None:
            continue  # killed before its first line was written
        kept = [entry for entry in entries if entry.step <= header["after_step"]]
        num_rows = header["num_rows"]
        attempts += 1
        redone += len(entries) - len(kept)
        entries = kept + [Entry(**line) for line in lines]
    for place, entry in enumerate(entries, start=1):
        if entry.step != place:
            raise DataError(f"{folder}: step {place} is missing from the ledger")
    return Account(entries=entries, num_rows=num_rows, attempts=attempts, redone=redone)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("attempt_*.jsonl"))


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of one attempt; a last one that was cut off is left out."""
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return
