"""The fourth stage: the samples that were chosen become tokens, sorted into groups.

Units are put into blocks by chance, and the samples of a block are dealt to its groups by chance;
a group will be a shard. So a shard has samples of up to `BLOCK` units, whatever the sources they
come from, and the next stage reads its group of each (`dealt`). The chance is a function of the
unit's number: nothing depends on who computes it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from launcher.prepare.shapes import Sample
from launcher.prepare.stages import cleaned, judged, near, selection
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.dealt import DealtRows, dealing
from launcher.prepare.stages.mixture import Copies
from launcher.prepare.stages.rows import PROMPTS_KEPT, Rows
from launcher.prepare.stages.stage import Report
from launcher.prepare.unusable import Unusable
from recipes.data import Data
from recipes.files import whole_file
from trainer.split import SPLITS

FOLDER = "tokens"
BLOCK = 64
"""Units whose samples are packed together."""
UNITS_PER_SHARD = 4
"""A shard is made of as many bytes of samples as so many units read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizing:
    """A unit to tokenise."""

    number: int
    num_samples: int
    first_line: int
    """Lines of its file before it."""
    file: str
    """Address of its file, for the rows that are set aside."""
    source: int
    """Number of its source in the recipe: those of data.train, then those of data.held_out."""
    groups: Mapping[str, int]
    """Groups of its block, by split."""
    copies: Copies
    labels: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}, after {self.first_line:,} lines"


@dataclass(slots=True)
class _Made:
    """What is made of a unit."""

    rows: Mapping[str, DealtRows]
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {s: Counter() for s in SPLITS})
    rejected: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    prompts: list[dict[str, Any]] = field(default_factory=list)


def blocks(num_units: int) -> list[list[int]]:
    """The units of each block, ascending: all units once, which block by chance."""
    order = np.random.Generator(np.random.Philox(num_units)).permutation(num_units)
    return [sorted(order[at : at + BLOCK].tolist()) for at in range(0, num_units, BLOCK)]


def tokens_file(context: Context, unit: int, split: str) -> Path:
    """The tokenised samples of one split of a unit, by group (`dealt`)."""
    return context.file(FOLDER, unit, f".{split}.arrow")


def tokenize_unit(part: Tokenizing, context: Context) -> Report:
    """Tokenise what was chosen of a unit, and write down what was not; memory: about 64 MiB of
    tokens for each split, and of each sample some 50 bytes."""
    folder = context.root / "rejected"
    folder.mkdir(exist_ok=True)
    rejected = folder / f"{part.number:05d}.jsonl"
    files = {split: tokens_file(context, part.number, split) for split in SPLITS}
    with whole_file(rejected) as stream, ExitStack() as stack:
        made = _Made(
            rows={
                split: stack.enter_context(dealing(file, part.groups[split]))
                for split, file in files.items()
            }
        )
        _tokenize(part, context, made, stream)
    return {
        "unit": part.number,
        "splits": {split: dict(counts) for split, counts in made.counts.items()},
        "rejected": dict(made.rejected),
        "cut": dict(made.cuts),
        "prompts": made.prompts,
        "files": context.named(rejected, *files.values()),
    }


def _tokenize(part: Tokenizing, context: Context, made: _Made, rejected: TextIO) -> None:
    rows = Rows(context, part.labels, part.source)
    aside = _Aside(part, context, rejected, made.rejected)
    for batch in _dealt(part, context):
        samples = [Sample.from_json(dealt.text) for dealt in batch if dealt.copies]
        ids = rows.ids(samples)
        each = zip(samples, ids, strict=True)
        for dealt in batch:
            if dealt.split is None:
                aside.put(dealt.number, dealt.verdict, "", dealt.text)
            elif dealt.copies == 0:
                made.counts[dealt.split]["left_out_of_mix"] += 1
            else:
                try:
                    _add(rows, *next(each), dealt, part, made)
                except Unusable as error:
                    aside.put(dealt.number, error.reason, error.detail, dealt.text)
    aside.rest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dealt:
    """A sample of the first stage, and what becomes of it."""

    number: int
    """Of its row in the unit."""
    text: str
    """The sample as JSON."""
    verdict: str
    split: str | None
    """None of one that is set aside."""
    copies: int
    group: int


def _dealt(part: Tokenizing, context: Context) -> Iterator[list[_Dealt]]:
    """The samples of a unit, as many at once as lie in one batch of their file."""
    verdicts = judged.codes_of(
        context, part.number, part.num_samples, (judged.FOLDER, near.FOLDER)
    ).tolist()
    chances = np.random.Generator(np.random.Philox(part.number)).random(part.num_samples).tolist()
    index = rank = 0
    for batch in cleaned.read_samples(context, part.number).to_batches():
        numbers, texts = (batch.column(name).to_pylist() for name in ("number", "sample"))
        found = []
        for number, text in zip(numbers, texts, strict=True):
            verdict = selection.reason(verdicts[index])
            split, copies = _SPLIT_OF.get(verdict), 1
            if verdict == selection.TRAIN:
                copies = part.copies.of(rank)
                rank += 1
            group = int(chances[index] * part.groups[split]) if split is not None else 0
            found.append(
                _Dealt(
                    number=number,
                    text=text,
                    verdict=verdict,
                    split=split,
                    copies=copies if split is not None else 0,
                    group=group,
                )
            )
            index += 1
        yield found


_SPLIT_OF = {selection.TRAIN: "train", selection.HELD_OUT: "held_out"}


def _add(
    rows: Rows,
    sample: Sample,
    ids: list[int] | None,
    dealt: _Dealt,
    part: Tokenizing,
    made: _Made,
) -> None:
    """Add the rows of a sample to its group. Raises `Unusable` where it has none."""
    assert dealt.split is not None
    sample_id = (part.number << 32) | dealt.number
    found = rows.of(sample, sample_id, dealt.split, ids)
    counts = made.counts[dealt.split]
    counts["samples"] += 1
    counts["repeated"] += dealt.copies - 1
    made.cuts.update(cut for row in found for cut in row["cuts"])
    counts["tokens"] += dealt.copies * sum(len(row["input_ids"]) for row in found)
    counts["supervised"] += dealt.copies * sum(row["supervised"] for row in found)
    for row in found * dealt.copies:
        made.rows[dealt.split].add(dealt.group, row)
    if dealt.split == "held_out" and len(made.prompts) < PROMPTS_KEPT:
        made.prompts += rows.prompts(sample, sample_id)


class _Aside:
    """Writes the rows that are set aside in the order of the file: those of this stage among those
    of the first."""

    def __init__(
        self, part: Tokenizing, context: Context, stream: TextIO, counts: Counter[str]
    ) -> None:
        self._part = part
        self._stream = stream
        self._counts = counts
        self._source = context.recipe.data
        first = cleaned.files_of(context, part.number)[2]
        self._first = (json.loads(line) for line in first.open(encoding="utf-8"))
        self._next = next(self._first, None)

    def put(self, number: int, reason: str, detail: str, sample: str) -> None:
        """A sample of this stage, told by its number in the unit."""
        while self._next is not None and self._next["number"] < number:
            self._step()
        self._write({"number": number, "reason": reason, "detail": detail, "sample": sample})

    def rest(self) -> None:
        """What is left of the first stage."""
        while self._next is not None:
            self._step()

    def _step(self) -> None:
        assert self._next is not None
        self._write(self._next)
        self._next = next(self._first, None)

    def _write(self, line: dict[str, Any]) -> None:
        row = self._part.first_line + line.pop("number") + 1
        self._counts[line["reason"]] += 1
        told = {"file": self._part.file, "row": row, **line}
        self._stream.write(json.dumps(told, ensure_ascii=False) + "\n")


def groups_of(units: Sequence[tuple[int, bool]], data: Data, group_bytes: int) -> dict[str, int]:
    """Groups of a block, by split, for shards of about `group_bytes` bytes of samples each.

    `units` are the bytes of the samples of each, and whether all of them are held out. With
    data.held_out_column nobody knows yet how many others are: a tenth is taken.
    """
    share = data.held_out_fraction or (0.1 if data.held_out_column else 0.0)
    held_out = sum(size if whole else size * share for size, whole in units)
    sizes = {"train": sum(size for size, _ in units) - held_out, "held_out": held_out}
    return {split: max(1, math.ceil(size / group_bytes)) for split, size in sizes.items()}
