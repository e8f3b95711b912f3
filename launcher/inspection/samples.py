"""Samples as the model sees them, with where each is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from launcher.inspection.decoder import Decoder, Piece
from trainer.shards import Row, learnt_of
from trainer.split import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a sample is from."""

    source: str
    file: str
    row: int
    """Of the file, from 1: a line, for files of lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSample:
    """One sample within its sequence."""

    id: int
    origin: Origin
    tokens: int
    learnt: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSequence:
    """One row of a split."""

    split: str
    row: int
    tokens: int
    samples: tuple[SeenSample, ...]
    left: int
    """Samples that are in the sequence but not among `samples`."""
    about: str
    """Its label, or which of the choices it ends with; empty for other texts."""


def origin_of(manifest: Mapping[str, Any], sample: int) -> Origin:
    """Where a sample is from, by its id."""
    unit = manifest["units"][sample >> 32]
    return Origin(
        source=manifest["mixture"][unit["source"]],
        file=manifest["sources"][unit["file"]]["path"],
        row=unit["first_line"] + (sample & 0xFFFFFFFF) + 1,
    )


def chosen_rows(split: Split, count: int, seed: int) -> list[int]:
    """Some rows by chance, ascending."""
    count = min(count, len(split))
    chance = np.random.default_rng(seed)
    return sorted(int(row) for row in chance.choice(len(split), count, replace=False))


def see(
    manifest: Mapping[str, Any],
    decoder: Decoder,
    name: str,
    split: Split,
    row: int,
    *,
    most: int | None = None,
    only: int | None = None,
) -> SeenSequence:
    """A row of the split that is called `name`: all of its samples, the first `most`, or `only` one
    of them, by its id."""
    found = split[row]
    learnt = _learnt(found)
    ends = np.cumsum(found.lengths)
    places = range(len(ends))
    if only is not None:
        places = [place for place in places if int(found.samples[place]) == only]  # type: ignore[assignment]
    samples = []
    for place in places[:most]:
        part = slice(int(ends[place] - found.lengths[place]), int(ends[place]))
        ids = found.input_ids[part].tolist()
        samples.append(
            SeenSample(
                id=int(found.samples[place]),
                origin=origin_of(manifest, int(found.samples[place])),
                tokens=len(ids),
                learnt=int(learnt[part].sum()),
                pieces=tuple(decoder.pieces(ids, learnt[part].tolist())),
            )
        )
    return SeenSequence(
        split=name,
        row=row,
        tokens=len(found.input_ids),
        samples=tuple(samples),
        left=len(ends) - len(samples),
        about=_about(found, manifest),
    )


def _learnt(row: Row) -> np.ndarray[Any, np.dtype[np.bool_]]:
    learnt = learnt_of(row.runs)
    # Of a classification the label is learnt, and no token.
    return learnt if len(learnt) else np.zeros(len(row.input_ids), np.bool_)


def _about(row: Row, manifest: Mapping[str, Any]) -> str:
    labels = manifest["labels"]
    if row.label >= 0:
        return f"label {labels[row.label]}"
    if len(row.label_set):
        return f"labels {', '.join(labels[number] for number in row.label_set)}"
    if row.choice >= 0 and "preference" in manifest["only_prepared"]:
        return "the chosen answer" if row.choice == row.answer else "the rejected answer"
    if row.choice >= 0:
        right = "right" if row.choice == row.answer else "wrong"
        return f"choice {row.choice + 1}, the {right} one"
    return ""


def file_name(file: str) -> str:
    """The last part of a path or address."""
    return Path(file.rstrip("/")).name
