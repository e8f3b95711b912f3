"""Examples of rows that failed: a few for each reason, kept in the manifest and shown in a line."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from launcher.prepare.stages import selection
from launcher.prepare.stages.stage import Report

REJECTED = "rejected"
"""The folder of the rows that were set aside, in that of prepared data."""

_KEPT = 3
_CHARACTERS = 200
_LINE = 120
# Of the rows of a unit that were set aside: so much is read to find examples among them.
_LOOKED_AT_BYTES = 2**26


class Example(TypedDict):
    """A row that failed."""

    file: str
    row: int
    """Of the file, from 1."""
    detail: str
    """What is wrong with it, where more is known than the reason."""
    text: str
    """Its beginning: columns or bytes, those that are no UTF-8 as `\\xff`."""


def examples_of(
    rejected: Path, cleaned: Sequence[Report], tokenized: Sequence[Report]
) -> dict[str, list[Example]]:
    """Up to three rows for each reason to fail, in the order of the sources, by reason.

    `rejected` is the folder with the rows of each unit that were set aside; the reports, in the
    order of the units, tell which hold what. Rows that the recipe leaves out have not failed.
    """
    chosen = {*selection.REASONS}.union(*(report["dropped"] for report in cleaned))
    found: dict[str, list[Example]] = {}
    for report in tokenized:
        wanted = Counter(
            {
                reason: min(count, _KEPT - len(found.get(reason, ())))
                for reason, count in report["rejected"].items()
                if reason not in chosen
            }
        )
        for reason, example in _first(rejected / f"{report['unit']:05d}.jsonl", +wanted):
            found.setdefault(reason, []).append(example)
    return dict(sorted(found.items()))


def _first(file: Path, wanted: Counter[str]) -> Iterator[tuple[str, Example]]:
    if not wanted:
        return
    read = 0
    with file.open("rb") as stream:
        for line in stream:
            told = json.loads(line)
            reason = told["reason"]
            if wanted[reason] > 0:
                wanted[reason] -= 1
                yield reason, _example(told)
            read += len(line)
            if not wanted.total() or read > _LOOKED_AT_BYTES:
                return


def _example(told: Mapping[str, Any]) -> Example:
    return Example(
        file=told["file"],
        row=told["row"],
        detail=told["detail"][:_CHARACTERS],
        text=text_of(told)[:_CHARACTERS],
    )


def text_of(told: Mapping[str, Any]) -> str:
    """What a row that was set aside was, from its line in rejected/."""
    if "base64" in told:
        return base64.b64decode(told["base64"]).decode("utf-8", "backslashreplace")
    return str(told.get("text", told.get("sample", "")))


def line_of(example: Mapping[str, Any]) -> str:
    """`reviews.jsonl row 31: {broken`, in one line."""
    name = PurePosixPath(example["file"].rstrip("/")).name
    what = ": ".join(filter(None, (example["detail"], example["text"])))
    return f"{name} row {example['row']:,}: {' '.join(what.split())[:_LINE]}"


def commonest(
    examples: Mapping[str, Sequence[Example]], counts: Mapping[str, int]
) -> list[tuple[str, Sequence[Example]]]:
    """Reasons with their examples, the commonest first."""
    return sorted(examples.items(), key=lambda pair: (-counts[pair[0]], pair[0]))
