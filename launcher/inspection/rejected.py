"""Rows that were set aside: why, where they are from, and what they were."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.errors import RecipeError
from recipes.problem import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """One row."""

    reason: str
    detail: str
    file: str
    row: int
    """Of the file, from 1."""
    text: str
    """What it was: its columns or its line; base64 where that is no UTF-8."""


def rejected_rows(
    folder: Path, manifest: Mapping[str, Any], count: int, reason: str | None
) -> list[RejectedRow]:
    """The first `count` rows for each reason, or for one, the commonest reason first.

    Raises `RecipeError` for a reason that no row has.
    """
    counts = manifest["rejected"]
    if reason is not None and reason not in counts:
        hint = did_you_mean(reason, counts) or f"There are: {', '.join(counts) or 'none'}"
        raise RecipeError(f"--reason {reason}: no row was set aside for it. {hint}")
    reasons = [reason] if reason is not None else list(counts)
    wanted = Counter({name: min(count, counts[name]) for name in reasons})
    found = []
    with closing(_rows(folder)) as rows:
        for row in rows:
            if not wanted.total():
                break
            if wanted[row.reason] > 0:
                wanted[row.reason] -= 1
                found.append(row)
    return sorted(found, key=lambda row: (-counts[row.reason], row.reason))


def why_rejected(folder: Path, manifest: Mapping[str, Any], sample: int) -> RejectedRow | None:
    """The row of a sample, by its id, if it was set aside."""
    number = sample >> 32
    row_number = manifest["units"][number]["first_line"] + (sample & 0xFFFFFFFF) + 1
    rows = _read(folder / "rejected" / f"{number:05d}.jsonl")
    return next((row for row in rows if row.row == row_number), None)


def _rows(folder: Path) -> Generator[RejectedRow, None, None]:
    for file in sorted((folder / "rejected").glob("*.jsonl")):
        yield from _read(file)


def _read(file: Path) -> Iterator[RejectedRow]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            told = json.loads(line)
            yield RejectedRow(
                reason=told["reason"],
                detail=told["detail"],
                file=told["file"],
                row=told["row"],
                text=next((told[k] for k in ("text", "sample", "base64") if k in told), ""),
            )
