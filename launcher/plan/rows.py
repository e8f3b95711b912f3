"""What there is to train on: counted in prepared shards, else estimated from the files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from launcher.prepare.reading import read
from launcher.prepare.reading.tables import open_parquet
from launcher.prepare.shapes import to_sample
from launcher.prepare.shapes.sample import texts_of
from launcher.prepare.sources.source import Source, Unit
from launcher.prepare.sources.units import units
from launcher.prepare.sources.unpacked import unpacked_bytes
from launcher.prepare.unusable import Unusable, with_remedy
from recipes.errors import DataError
from recipes.recipe import Recipe
from trainer.shards import read_manifest
from trainer.split import open_split

_LOOKED_AT_BYTES = 2**20
_LOOKED_AT_ROWS = 10_000
_LOOKED_AT_PARTS = 16
# English takes 4 characters a token, Chinese about 1.5 characters of 3 bytes.
_TEXT_BYTES_PER_TOKEN = 4.0
# The marks of roles and the system message that a chat's template writes.
_CHAT_TOKENS = 16

NONE_SEEN = "data.train: none of the first rows can be trained on"
"""How it begins where no row was found to be usable, as far as was looked."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows (sequences) of the training split, and how many are held out."""

    tokens: Numbers
    """Of each row, (rows,)."""
    samples: Numbers
    """In each row, (rows,)."""
    supervised: Numbers
    """Tokens of each row that something is learnt from, or labels; (rows,)."""
    held_out: int
    """Samples; with evaluate.choices each is there as a row for each choice."""
    held_out_tokens: Numbers
    held_out_supervised: Numbers
    labels: tuple[str, ...]
    prepared: Path | None
    """Where the rows were counted; None when they are estimated."""

    def __len__(self) -> int:
        return len(self.tokens)


def count_rows(folder: Path) -> Rows:
    """The rows of a prepared folder, exactly. Reads lengths, no tokens."""
    manifest = read_manifest(folder)
    train, held_out = open_split(folder, "train"), open_split(folder, "held_out")
    return Rows(
        tokens=train.tokens.astype(np.int64),
        samples=train.samples_per_row,
        supervised=train.supervised.astype(np.int64),
        held_out=int(manifest["splits"]["held_out"]["samples"]),
        held_out_tokens=held_out.tokens.astype(np.int64),
        held_out_supervised=held_out.supervised.astype(np.int64),
        labels=tuple(manifest["labels"]),
        prepared=folder,
    )


def _joined(parts: Sequence[Numbers]) -> Numbers:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def estimate_rows(recipe: Recipe, sources: Sequence[Source]) -> Rows:
    """Rows from the sizes of the files and the beginning of each; nothing is tokenised.

    Duplicates and rows that will be set aside are not known yet, so these are rather too many.
    Raises `DataError` when a file cannot be read, or no row is found that can be trained on.
    """
    lengths: dict[str, list[Numbers]] = {"train": [], "held_out": []}
    for (split, _), files in groupby(sources, key=lambda source: (source.split, source.entry)):
        entry = list(files)
        found = _joined([_estimate(recipe, source) for source in entry])
        lengths[split].append(found[: entry[0].spec.limit])
    train = _joined(lengths["train"])
    held_out = _joined(lengths["held_out"])
    if not len(train):
        raise DataError(_why_none(recipe, [one for one in sources if one.split == "train"]))
    share = recipe.data.held_out_fraction
    if share:
        kept = round(len(train) * (1 - share))
        train, held_out = train[:kept], train[kept:]
    choices = max(1, len(recipe.evaluate.choices))
    held_out_tokens = np.repeat(np.minimum(held_out, recipe.data.sequence_length), choices)
    return Rows(
        **_as_rows(recipe, train),
        held_out=len(held_out),
        held_out_tokens=held_out_tokens,
        held_out_supervised=held_out_tokens,
        labels=tuple(recipe.data.labels),
        prepared=None,
    )


def _why_none(recipe: Recipe, sources: Sequence[Source]) -> str:
    """That no row at the beginning of the files can be trained on, and why the first cannot."""
    whole = (Unit(number=0, source=source, begin=0, end=0) for source in sources)
    first = ((unit, raw) for unit in whole for raw in islice(read(unit), 1))
    unit, raw = next(first, (None, None))
    if unit is None or raw is None:
        return "data.train: there are no rows in its files"
    error = Unusable(raw.reason, raw.detail)
    if raw.columns is not None:
        try:
            to_sample(raw.columns, recipe, unit.source.spec)
        except Unusable as unusable:
            error = unusable
    told = f"{unit.source.address} row {raw.number + 1}: {error}{with_remedy(error.reason)}"
    return f"{NONE_SEEN}. {told}"


def _as_rows(recipe: Recipe, samples: Numbers) -> dict[str, Numbers]:
    """Samples of so many tokens as rows, packed if the recipe says so."""
    limit = recipe.data.sequence_length
    samples = np.minimum(samples, limit)
    one = np.ones(len(samples), np.int64)
    if recipe.task == "sequence_classification":
        return {"tokens": samples, "samples": one, "supervised": one}
    if not recipe.data.packing:
        return {"tokens": samples, "samples": one, "supervised": samples}
    rows = max(1, math.ceil(samples.sum() / limit))
    tokens = np.full(rows, limit, np.int64)
    tokens[-1] = samples.sum() - limit * (rows - 1)
    counts = np.full(rows, len(samples) // rows, np.int64)
    counts[: len(samples) % rows] += 1
    return {"tokens": tokens, "samples": counts, "supervised": tokens}


def _estimate(recipe: Recipe, source: Source) -> Numbers:
    """Estimated tokens of each sample of a file: those of its beginning, over and over."""
    # Rows are counted for a limit, which is one of all files of an entry.
    parts = units([replace(source, spec=replace(source.spec, limit=None))], _LOOKED_AT_BYTES)
    # Much that is no row can come first, such as what a JSON file tells of its rows.
    for number, part in enumerate(parts[:_LOOKED_AT_PARTS]):
        seen = _look(recipe, part)
        if seen.tokens:
            count = round(len(seen.tokens) * _times(source, parts[number:], seen))
            return np.resize(np.array(seen.tokens, np.int64), count)
    return np.zeros(0, np.int64)


@dataclass(slots=True)
class _Seen:
    """A part of a file; `bytes` are those of its rows as JSON."""

    tokens: list[int] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0


def _times(source: Source, parts: Sequence[Unit], seen: _Seen) -> float:
    """How many times what is left of a file is as large as what was seen of the first of `parts`,
    which are what is left."""
    if source.kind == "parquet" and source.compression is None:
        with open_parquet(source) as file:
            return float(file.metadata.num_rows / seen.rows)
    if seen.rows == _LOOKED_AT_ROWS:
        return max(1.0, unpacked_bytes(source) / seen.bytes)
    if source.kind not in ("parquet", "arrow") and parts[0].end:
        begin = parts[0].begin
        # Of a part behind others without a row nobody knows where in it rows begin.
        return (unpacked_bytes(source) - begin) / (seen.bytes if begin else parts[0].end)
    return float(len(parts))


def _look(recipe: Recipe, unit: Unit) -> _Seen:
    seen = _Seen()
    for raw in islice(read(unit), _LOOKED_AT_ROWS):
        seen.rows += 1
        seen.bytes += len(raw.raw)
        if raw.columns is None:
            continue
        row = json.dumps(raw.columns, ensure_ascii=False, default=str)
        seen.bytes += len(row.encode("utf-8", "replace"))
        try:
            sample = to_sample(raw.columns, recipe, unit.source.spec)
        except Unusable:
            continue
        if sample.messages is not None:
            texts = [text for message in sample.messages for text in texts_of(message)]
            extra = _CHAT_TOKENS
        else:
            texts, extra = [sample.texts()], 2
        text_bytes = sum(len(text.encode()) for text in texts)
        seen.tokens.append(extra + math.ceil(text_bytes / _TEXT_BYTES_PER_TOKEN))
    return seen
