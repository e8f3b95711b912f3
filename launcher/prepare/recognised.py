"""What the rows of a recipe's sources are taken for, told before they are prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import PurePath

from launcher.prepare.mixture import names
from launcher.prepare.reading import read
from launcher.prepare.shapes import guess
from launcher.prepare.sources import Source
from launcher.prepare.units import first_unit
from recipes.recipe import Recipe

_ROWS = 50
_UNIT_BYTES = 2**20
_CHARACTERS = 240


def recognised(recipe: Recipe, sources: Sequence[Source]) -> Iterator[str]:
    """A line for each entry of data.train and data.held_out, from the first rows of its first file.

    `reviews: text_label (columns text, label), from train.jsonl and 3 more`. Raises `DataError`
    when that file cannot be read.
    """
    called = names([*recipe.data.train, *recipe.data.held_out])
    before = {"train": 0, "held_out": len(recipe.data.train)}
    for (split, entry), group in groupby(sources, key=lambda source: (source.split, source.entry)):
        files = list(group)
        first = files[0]
        unit = first_unit(first, _UNIT_BYTES)
        rows = islice(read(unit), first.spec.limit) if unit is not None else ()
        columns = (row.columns for row in rows if row.columns is not None)
        found = guess(islice(columns, _ROWS), recipe, first.spec)
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        name = called[before[split] + entry]
        yield _short(f"{name}: {found.told}, from {PurePath(first.address).name}{more}")


def _short(text: str) -> str:
    """Names of columns are whatever a file says: there may be hundreds, of any characters."""
    plain = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return plain if len(plain) <= _CHARACTERS else f"{plain[: _CHARACTERS - 1]}…"
