"""What the rows of a recipe's sources are taken for, told before they are prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import PurePath

from launcher.prepare.reading import read
from launcher.prepare.shapes import guess
from launcher.prepare.sources.source import Source, Unit
from launcher.prepare.stages.mixture import names
from recipes.recipe import Recipe

_ROWS = 50
# Among so many, those of whose columns nothing can be told included.
_LOOKED_AT_ROWS = 1000
_CHARACTERS = 240
_NO_TOOLS = (
    "rows name tools, which the chat template does not write: the model never sees them. Give "
    "data.chat_template with one that does"
)


def recognised(
    recipe: Recipe, sources: Sequence[Source], templates: Sequence[str]
) -> Iterator[str]:
    """A line for each entry of data.train and data.held_out, from the first rows of its first file,
    and one more where files of its folder or pattern are of no known kind, or where its rows name
    tools and none of the chat templates writes any.

    `reviews: text_label (columns text, label), from train.jsonl and 3 more`. Raises `DataError`
    when that file cannot be read.
    """
    called = names([*recipe.data.train, *recipe.data.held_out])
    before = {"train": 0, "held_out": len(recipe.data.train)}
    for (split, entry), group in groupby(sources, key=lambda source: (source.split, source.entry)):
        files = list(group)
        first = files[0]
        whole = Unit(number=0, source=first, begin=0, end=0)
        rows = islice(read(whole), min(first.spec.limit or _LOOKED_AT_ROWS, _LOOKED_AT_ROWS))
        columns = (row.columns for row in rows if row.columns is not None)
        found = guess(islice(columns, _ROWS), recipe, first.spec)
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        name = called[before[split] + entry]
        yield _short(f"{name}: {found.told}, from {PurePath(first.address).name}{more}")
        if found.has_tools and not any("tools" in template for template in templates):
            yield f"{name}: {_NO_TOOLS}"
        if first.beside:
            yield _short(f"{name}: no rows are read from {first.beside}")


def _short(text: str) -> str:
    """Names of columns are whatever a file says: there may be hundreds, of any characters."""
    plain = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return plain if len(plain) <= _CHARACTERS else f"{plain[: _CHARACTERS - 1]}…"
