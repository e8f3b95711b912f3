"""What is counted of prepared data, as it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from launcher.inspection.histogram import Histogram, histogram
from launcher.inspection.place import Place
from launcher.prepare.examples import Example
from trainer.shards import Shard
from trainer.split import Split

# Lengths of samples are read from as many shards as hold about so many, about 20 MB.
_SAMPLES_READ = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFigures:
    """One source of the recipe, or all of them. Tokens are those of both splits."""

    name: str
    rows: int
    """That were read."""
    samples: int
    """To train on, repeated ones included."""
    held_out: int
    tokens: int
    supervised: int
    repeated: int
    left_out: int
    """Samples that the weights leave no room for."""
    set_aside: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why rows were set aside, and how many of each source."""

    name: str
    rows: int
    by_source: Mapping[str, int]
    examples: tuple[Example, ...]
    """Rows that failed so; none where the recipe leaves rows out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that is counted."""

    key: str
    folder: str
    recipe: str
    base: str
    task: str
    labels: tuple[str, ...]
    sequence_length: int
    sequences: int
    """Rows of the training split."""
    held_out_sequences: int
    padding: float | None
    """Share of positions without a token when all sequences are filled up; None without packing."""
    sources: tuple[SourceFigures, ...]
    total: SourceFigures
    reasons: tuple[Reason, ...]
    cut: Mapping[str, int]
    changed: Mapping[str, int]
    per_sample: Histogram | None
    """Tokens of each training sample."""
    per_sequence: Histogram | None
    """Tokens of each training sequence; None without packing, where a sequence is a sample."""
    shards_read: tuple[int, int]
    """From how many of the training shards, of how many, the lengths of samples are."""


def figures_of(place: Place, train: Split) -> Figures:
    """Count what is not counted in the manifest already."""
    manifest = place.manifest
    sources = tuple(_source(name, told) for name, told in manifest["by_source"].items())
    shards = manifest["splits"]["train"]["shards"]
    step = shards_step([shard["samples"] for shard in shards])
    read = shards[::step]
    packing = manifest.get("packing", False)
    return Figures(
        key=manifest["key"],
        folder=str(place.folder),
        recipe=manifest.get("recipe", ""),
        base=manifest.get("base", {}).get("source", ""),
        task=manifest["task"],
        labels=tuple(manifest["labels"]),
        sequence_length=manifest.get("sequence_length", 0),
        sequences=manifest["splits"]["train"]["rows"],
        held_out_sequences=manifest["splits"]["held_out"]["rows"],
        padding=manifest["splits"]["train"]["padding"] if packing else None,
        sources=sources,
        total=_total(sources),
        reasons=tuple(_reasons(manifest)),
        cut=_ordered(manifest["cut"]),
        changed=_ordered(manifest["changed"]),
        per_sample=histogram(_sample_lengths(place.folder / "train", read)),
        per_sequence=histogram(train.tokens) if packing else None,
        shards_read=(len(read), len(shards)),
    )


def _source(name: str, told: Mapping[str, Any]) -> SourceFigures:
    splits = (told["train"], told["held_out"])
    repeated = sum(split["repeated"] for split in splits)
    return SourceFigures(
        name=name,
        rows=told["rows"],
        samples=told["train"]["samples"] + told["train"]["repeated"],
        held_out=told["held_out"]["samples"],
        tokens=sum(split["tokens"] for split in splits),
        supervised=sum(split["supervised"] for split in splits),
        repeated=repeated,
        left_out=sum(split["left_out_of_mix"] for split in splits),
        set_aside=sum(told["rejected"].values()),
    )


def _total(sources: Sequence[SourceFigures]) -> SourceFigures:
    names = [name for name in SourceFigures.__slots__ if name != "name"]
    sums = {name: sum(getattr(source, name) for source in sources) for name in names}
    return SourceFigures(name="all", **sums)


def _reasons(manifest: Mapping[str, Any]) -> list[Reason]:
    return [
        Reason(
            name=reason,
            rows=rows,
            by_source={
                name: told["rejected"][reason]
                for name, told in manifest["by_source"].items()
                if reason in told["rejected"]
            },
            examples=tuple(manifest.get("examples", {}).get(reason, ())),
        )
        for reason, rows in _ordered(manifest["rejected"]).items()
    ]


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    """The commonest first."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def shards_step(samples: Sequence[int], most: int = _SAMPLES_READ) -> int:
    """Every how manieth shard is read, so that about `most` samples are."""
    return max(1, -(-sum(samples) // most))


def _sample_lengths(folder: Path, shards: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    parts = [Shard(folder / shard["file"]).sample_lengths() for shard in shards]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
