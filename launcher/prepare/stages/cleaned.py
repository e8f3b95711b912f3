"""The first stage: rows become cleaned samples, each with what tells equal ones.

A unit leaves its samples (Arrow), the rows that became none, and a record of each sample in the
order of its question's hash, from which duplicates are found over all units.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from launcher.prepare.cleaning import Cleaner, boilerplate_step, cleaner_of
from launcher.prepare.reading import RawRow, read
from launcher.prepare.shapes import to_sample
from launcher.prepare.shapes.columns import look_up
from launcher.prepare.shapes.images import keep_in
from launcher.prepare.shapes.sample import digest_of
from launcher.prepare.sources.source import Unit
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.runs import PREFIXES, prefixes, write_run
from launcher.prepare.stages.stage import Report
from launcher.prepare.unusable import Dropped, Unusable
from recipes.files import whole_file, whole_path

FOLDER = "clean"
FREQUENT_LINES = "frequent_lines.npy"

SAMPLES = pa.schema(
    [
        ("number", pa.int64()),  # of the row in its unit
        ("sample", pa.string()),  # Sample.to_json
    ]
)
KEY = np.dtype([("question", "S16"), ("digest", "S16"), ("index", "<u4"), ("held_out", "?")])
"""A sample: the digests of its input and of all of it, its place among the samples of its unit, and
whether its row names it held out."""

_ABSENT = object()
_BATCH = 1024
_BATCH_CHARACTERS = 2**23
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 200
# More than a classification has; a column of free text would fill the memory of the driver.
MOST_LABELS = 10_000


@dataclass(slots=True)
class _Seen:
    """What is counted while a unit is read."""

    rows: int = 0
    samples: int = 0
    lines: int = 0
    text_bytes: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    has_several: bool = False
    only_prepared: set[str] = field(default_factory=set)
    keys: list[tuple[bytes, bytes, int, bool]] = field(default_factory=list)
    """Of the samples of a batch."""


def clean_unit(unit: Unit, context: Context) -> Report:
    """Read and clean one unit; memory: a batch of samples, and 37 bytes a sample of the unit."""
    samples, keys, rejected = files_of(context, unit.number)
    seen = _Seen()
    cleaner = cleaner_of(
        context.recipe.data.clean,
        tokenizer_folder=context.tokenizer,
        frequent_lines=frequent_lines(context),
    )
    parts = []
    cleaner.take_counts()  # of a unit whose task has failed in this process
    with (
        whole_path(samples) as aside,
        whole_file(rejected) as aside_rejected,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, SAMPLES) as writer,
    ):
        for numbers, texts in _batches(_samples(unit, context, cleaner, seen, aside_rejected)):
            writer.write_batch(
                pa.record_batch([pa.array(numbers), pa.array(texts)], schema=SAMPLES)
            )
            parts.append(np.array(seen.keys, KEY))  # a tenth of the memory
            seen.keys.clear()
    records = np.concatenate([np.zeros(0, KEY), *parts])
    hashes = np.ascontiguousarray(records["question"]).view("<u8").reshape(-1, 2)[:, 1]
    with whole_path(keys) as aside:
        write_run(aside, prefixes(hashes), records, PREFIXES)
    return {
        "unit": unit.number,
        "rows": seen.rows,
        "lines": seen.lines,
        "samples": len(records),
        "text_bytes": seen.text_bytes,
        "labels": sorted(seen.labels)[:MOST_LABELS],
        "has_several": seen.has_several,
        "only_prepared": sorted(seen.only_prepared),
        "failed": dict(seen.failed),
        "dropped": dict(seen.dropped),
        "changed": cleaner.take_counts(),
        "examples": seen.examples,
        "files": context.named(samples, keys, rejected),
    }


def frequent_lines(context: Context) -> Path | None:
    """The file of the lines that boilerplate_lines takes out, if a recipe has the step."""
    asked = boilerplate_step(context.recipe.data.clean) is not None
    return context.work / FREQUENT_LINES if asked else None


def files_of(context: Context, unit: int) -> tuple[Path, Path, Path]:
    """Samples, keys and rejected rows of a unit."""
    suffixes = (".arrow", ".keys", ".rejected.jsonl")
    first, second, third = (context.file(FOLDER, unit, suffix) for suffix in suffixes)
    return first, second, third


def read_samples(context: Context, unit: int) -> pa.Table:
    """The samples of a unit, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(str(files_of(context, unit)[0]))).read_all()


def _samples(
    unit: Unit, context: Context, cleaner: Cleaner, seen: _Seen, rejected: TextIO
) -> Iterator[tuple[int, str]]:
    """Number and JSON of each sample."""
    from_held_out = unit.source.split == "held_out"
    keep_image = keep_in(context.root)
    rows = read(unit)
    for raw in rows:
        seen.rows += 1
        try:
            if raw.columns is None:
                raise Unusable(raw.reason, raw.detail)
            sample = to_sample(raw.columns, context.recipe, unit.source.spec, cleaner, keep_image)
            held_out = from_held_out or _names_held_out(raw.columns, context)
        except Unusable as error:
            _set_aside(raw, error, unit, seen, rejected)
            continue
        if len(seen.labels) <= MOST_LABELS:
            seen.labels.update([sample.label] if sample.label is not None else sample.labels or [])
        seen.has_several |= sample.labels is not None
        if sample.only_prepared is not None:
            seen.only_prepared.add(sample.only_prepared)
        text = sample.to_json()
        seen.keys.append((sample.question_digest(), digest_of(text), seen.samples, held_out))
        seen.samples += 1
        seen.text_bytes += len(text)
        yield raw.number, text
    seen.lines = rows.lines


def _names_held_out(columns: dict[str, Any], context: Context) -> bool:
    data = context.recipe.data
    if data.held_out_column is None:
        return False
    value = look_up(columns, data.held_out_column, _ABSENT)
    if value is _ABSENT:
        raise Unusable("no known column", f"no {data.held_out_column}")
    return str(value).strip() in data.held_out_values


def _batches(samples: Iterator[tuple[int, str]]) -> Iterator[tuple[list[int], list[str]]]:
    numbers: list[int] = []
    texts: list[str] = []
    characters = 0
    for number, text in samples:
        numbers.append(number)
        texts.append(text)
        characters += len(text)
        if len(texts) == _BATCH or characters >= _BATCH_CHARACTERS:
            yield numbers, texts
            numbers, texts, characters = [], [], 0
    if texts:
        yield numbers, texts


def _set_aside(raw: RawRow, error: Unusable, unit: Unit, seen: _Seen, rejected: TextIO) -> None:
    counted = seen.dropped if isinstance(error, Dropped) else seen.failed
    counted[error.reason] += 1
    line = {"number": raw.number, "reason": error.reason, "detail": error.detail} | _content(raw)
    if not isinstance(error, Dropped):
        examples = seen.examples.setdefault(error.reason, [])
        if len(examples) < _EXAMPLES:
            shown = str(line.get("text", ""))[:_EXAMPLE_CHARACTERS]
            examples.append(f"{unit}, row {raw.number + 1}: {error.detail or shown}")
    rejected.write(json.dumps(line, ensure_ascii=False) + "\n")


def _content(raw: RawRow) -> dict[str, str]:
    """The row as it was: its columns, or its bytes, as text where they are UTF-8."""
    if raw.columns is not None:
        text = json.dumps(raw.columns, ensure_ascii=False, default=_plain)
    else:
        try:
            text = raw.raw.decode("utf-8")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw.raw).decode()}
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        text = json.dumps(raw.columns, ensure_ascii=True, default=_plain)
    return {"text": text}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return str(value)
