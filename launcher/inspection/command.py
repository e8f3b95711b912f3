"""What `shoal inspect` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from launcher.inspection import shown
from launcher.inspection.decoder import Decoder
from launcher.inspection.figures import Figures, figures_of
from launcher.inspection.place import Place, check_sample, find
from launcher.inspection.rejected import RejectedRow, rejected_rows, why_rejected
from launcher.inspection.samples import SeenSequence, chosen_rows, see
from recipes.errors import DataError, RecipeError
from recipes.files import write_whole
from recipes.storage import default_cache
from trainer.split import SPLITS, Split, open_split

# Of a packed sequence that is shown by chance; one that is named is shown whole.
_SAMPLES_OF_SEQUENCE = 3
_LINE_WIDTH = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a person asks to see."""

    samples: int
    """Sequences by chance, and rows that were set aside for each reason."""
    seed: int
    split: str | None
    row: int | None
    sample: int | None
    rejected: bool
    reason: str | None

    @property
    def names_one(self) -> bool:
        return self.row is not None or self.sample is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is shown of prepared data. No figures where one sample is asked for, or what was set
    aside."""

    figures: Figures | None
    sequences: tuple[SeenSequence, ...]
    rejected: tuple[RejectedRow, ...]
    counts: Mapping[str, int]
    """Rows that were set aside, by reason."""


def inspect(
    reference: str,
    overrides: list[str],
    wanted: Wanted,
    *,
    cache: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show prepared data on the terminal, as JSON, or in a page."""
    if wanted.split is not None and wanted.split not in SPLITS:
        raise RecipeError(f"--split {wanted.split}: is no split; there are {', '.join(SPLITS)}")
    place = find(reference, overrides, cache or Path(default_cache()))
    if html is not None:
        from launcher.inspection.page import page_of

        seen = look(place, wanted, everything=True)
        write_whole(html, page_of(seen))
        print(f"Wrote {html}")
        return
    seen = look(place, wanted)
    if as_json:
        print(json.dumps(as_dict(seen), ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _LINE_WIDTH
    show(console, seen, wanted)


def look(place: Place, wanted: Wanted, *, everything: bool = False) -> Seen:
    """What a person asks to see; with `everything`, figures and rows that were set aside too."""
    splits = {name: open_split(place.folder, name) for name in SPLITS}
    only_rejected = wanted.rejected and not everything
    rejected = []
    if wanted.rejected or everything:
        rejected = rejected_rows(place.folder, place.manifest, wanted.samples, wanted.reason)
    wants_figures = everything or not (wanted.names_one or wanted.rejected)
    return Seen(
        figures=figures_of(place, splits["train"]) if wants_figures else None,
        sequences=() if only_rejected else tuple(_sequences(place, splits, wanted)),
        rejected=tuple(rejected),
        counts=place.manifest["rejected"],
    )


def _sequences(place: Place, splits: Mapping[str, Split], wanted: Wanted) -> list[SeenSequence]:
    manifest, name = place.manifest, wanted.split or "train"
    if wanted.sample is not None:
        return _of_sample(place, splits, wanted.sample, wanted.split)
    if wanted.row is None and wanted.samples == 0:
        return []
    decoder = Decoder(manifest["base"])
    if wanted.row is not None:
        if not 0 <= wanted.row < len(splits[name]):
            there = f"sequences 0 to {len(splits[name]) - 1:,}" if len(splits[name]) else "none"
            raise RecipeError(f"--row {wanted.row}: the split {name} has {there}")
        return [see(manifest, decoder, name, splits[name], wanted.row)]
    rows = chosen_rows(splits[name], wanted.samples, wanted.seed)
    most = _SAMPLES_OF_SEQUENCE
    return [see(manifest, decoder, name, splits[name], row, most=most) for row in rows]


def _of_sample(
    place: Place, splits: Mapping[str, Split], sample: int, split: str | None
) -> list[SeenSequence]:
    """All that became of a sample. Raises `DataError` with the reason when nothing did."""
    check_sample(place.manifest, sample)
    names = [split] if split else SPLITS
    rows = [(name, row) for name in names for row in splits[name].rows_with(sample)]
    if not rows:
        aside = why_rejected(place.folder, place.manifest, sample)
        if aside is None:
            raise DataError(
                f"--sample {sample}: is in no sequence and was not set aside. There is no such "
                "row, or it was left out to meet the weights of the sources"
            )
        why = f"{aside.reason} ({aside.detail})" if aside.detail else aside.reason
        raise DataError(f"--sample {sample}: {aside.file} row {aside.row} was set aside: {why}")
    decoder = Decoder(place.manifest["base"])
    return [
        see(place.manifest, decoder, name, splits[name], row, only=sample) for name, row in rows
    ]


def show(console: Console, seen: Seen, wanted: Wanted) -> None:
    """On a terminal."""
    if seen.figures is not None:
        shown.show_figures(console, seen.figures)
    if seen.sequences:
        shown.show_sequences(console, seen.sequences, whole=wanted.names_one)
    if wanted.rejected:
        shown.show_rejected(console, seen.rejected, seen.counts)


def as_dict(seen: Seen) -> dict[str, Any]:
    """As JSON takes it."""
    return asdict(seen)
