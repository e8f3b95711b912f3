"""Which shape a row has, by its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from launcher.prepare.shapes.calls import tools_of
from launcher.prepare.shapes.columns import Columns, columns_of
from launcher.prepare.unusable import Unusable
from recipes.data import Data, Source
from recipes.data.prompts import variables
from recipes.data.shapes import CLASSIFIED, Shape
from recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """The columns that tell a shape: shoal's name of each, and how rows of this kind call it."""

    shape: Shape
    columns: Mapping[str, str]

    def fits(self, columns: Columns, *, asked: bool = False) -> bool:
        """Whether the row has them all; when it is asked, those that are not the answer."""
        needed = [name for name in self.columns if not (asked and name in _ANSWERS)]
        named = columns.renamed(self.columns)
        taken = set(columns.names.values())
        return bool(needed) and all(
            named.has(name) and (name in columns.names or self.columns[name] not in taken)
            for name in needed
        )


def _tell(shape: Shape, *same: str, **other: str) -> Tell:
    return Tell(shape=shape, columns={**{name: name for name in same}, **other})


TELLS: tuple[Tell, ...] = (
    _tell("preference", "chosen", "rejected"),
    _tell("image_text", "messages", "images"),
    _tell("image_text", "messages", images="image"),
    _tell("image_text", "images", messages="conversations"),
    _tell("image_text", messages="conversations", images="image"),
    _tell("messages", "messages"),
    _tell("sharegpt", messages="conversations"),
    _tell("sharegpt", messages="conversation"),
    _tell("alpaca", "instruction", "output"),
    _tell("prompt_completion", "prompt", "completion"),
    _tell("prompt_completion", "prompt", completion="response"),
    _tell("text_pair", "text", "text_pair", "label"),
    _tell("text_pair", "label", text="sentence1", text_pair="sentence2"),
    _tell("text_pair", "label", text="premise", text_pair="hypothesis"),
    _tell("text_labels", "text", "labels"),
    _tell("text_label", "text", "label"),
    _tell("image_text", "images", "text"),
    _tell("image_text", "text", images="image"),
    _tell("text", "text"),
)
"""In this order: rows often have more columns than they need, and the first that fits is taken."""

_WITH_TOOLS = ("preference", "image_text", "messages", "sharegpt", "prompt_completion")
_ANSWERS = ("completion", "output", "chosen", "rejected", "label", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """The shape of a row, and its columns by the names which that shape knows."""

    shape: Shape
    columns: Columns
    tell: Tell

    @property
    def by(self) -> tuple[str, ...]:
        """The columns that told it, as the row calls them."""
        return tuple(map(self.columns.name_of, self.tell.columns))


def recognise(
    columns: Columns, recipe: Recipe, source: Source | None, *, asked: bool = False
) -> Recognised:
    """The shape of a row: the one that the recipe names, or what its columns tell.

    With `asked` the answer may be missing, and the shape be another than is named. Raises
    `Unusable` when no shape fits.
    """
    shape = (source.format if source else None) or recipe.data.format
    tell = _told_by(columns, shape, recipe.task, asked)
    if tell is None:
        raise Unusable("no known column", columns.told())
    return Recognised(shape=tell.shape, columns=columns.renamed(tell.columns), tell=tell)


def _told_by(columns: Columns, shape: Shape, task: str, asked: bool) -> Tell | None:
    """What tells the shape of a row. Rows of a file have the same columns, mostly, and to look
    through all tells took a fifth of the time of cleaning."""
    if len(columns.row) > _FEW_COLUMNS or any("." in name for name in columns.names.values()):
        return _find_tell(columns, shape, task, asked)  # a dotted name looks into the values
    return _told_by_names(tuple(columns.row), tuple(columns.names.items()), shape, task, asked)


_FEW_COLUMNS = 32


@lru_cache(maxsize=64)
def _told_by_names(
    row: tuple[str, ...], names: tuple[tuple[str, str], ...], shape: Shape, task: str, asked: bool
) -> Tell | None:
    columns = Columns(row=dict.fromkeys(row), names=dict(names))
    return _find_tell(columns, shape, task, asked)


def _find_tell(columns: Columns, shape: Shape, task: str, asked: bool) -> Tell | None:
    tells = [tell for tell in _possible(task) if shape in ("auto", tell.shape)]
    fitting = [tell for tell in tells if tell.fits(columns)]
    if not fitting and asked:
        # What is asked may have another shape than what was trained on.
        asking = [*tells, *_possible(task)]
        fitting = [tell for tell in asking if tell.fits(columns, asked=True)]
    if not fitting and shape == "auto":
        return None
    # A row that lacks what its shape needs is told so by what makes a sample of it.
    return (fitting or tells)[0]


def _possible(task: str) -> list[Tell]:
    if task == "causal_lm":
        return list(TELLS)
    # A text alone is told to lack a label.
    return [tell for tell in TELLS if tell.shape in (*CLASSIFIED, "text")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What the first rows of a source look like."""

    shape: Shape | None
    """The commonest; None when none was recognised."""
    columns: tuple[str, ...]
    """By which it was recognised, as rows call them; else all that the first row has."""
    counts: Mapping[str, int]
    """Rows of each shape, and `no known column` for those of none; the commonest first."""
    missing: tuple[str, ...] | None = None
    """With data.prompt, which takes rows of any shape: columns that it names and the first row does
    not have. None without."""

    has_tools: bool = False
    """Whether any of the rows, as a chat, has tools that may be called."""

    @property
    def told(self) -> str:
        """For a person: `alpaca (columns instruction, output)`."""
        by = f"columns {', '.join(self.columns) or 'none'}"
        if self.missing is not None:
            lacks = f"; the rows have no {', '.join(self.missing)}" if self.missing else ""
            return f"data.prompt ({by}){lacks}"
        if self.shape is None:
            return f"no known shape ({by})"
        rest = [f"{count} {shape}" for shape, count in self.counts.items() if shape != self.shape]
        among = f"; of the first {sum(self.counts.values())} rows also {', '.join(rest)}"
        return f"{self.shape} ({by}){among if rest else ''}"


def guess(rows: Iterable[Mapping[str, Any]], recipe: Recipe, source: Source | None) -> Guess:
    """The shape that most of the rows have, each of them as `to_sample` will take it."""
    if recipe.data.prompt:
        return _of_prompt(next(iter(rows), {}), recipe.data, source)
    counts: Counter[str] = Counter()
    by: dict[Shape, tuple[str, ...]] = {}
    first: tuple[str, ...] = ()
    has_tools = False
    for row in rows:
        first = first or tuple(map(str, row))
        try:
            found = recognise(columns_of(row, recipe.data, source), recipe, source)
        except Unusable as error:
            counts[error.reason] += 1
            continue
        counts[found.shape] += 1
        by.setdefault(found.shape, found.by)
        has_tools |= found.shape in _WITH_TOOLS and _names_tools(found.columns)
    shape = max(by, key=lambda shape: counts[shape], default=None)
    return Guess(
        shape=shape,
        columns=by[shape] if shape else first,
        counts=dict(counts.most_common()),
        has_tools=has_tools,
    )


def _names_tools(columns: Columns) -> bool:
    try:
        return bool(tools_of(columns.get("tools")))
    except Unusable:
        return False  # the row is set aside


def _of_prompt(row: Mapping[str, Any], data: Data, source: Source | None) -> Guess:
    columns = columns_of(row, data, source)
    texts = [*data.prompt, *([data.answer] if data.answer is not None else [])]
    named = dict.fromkeys(name for text in texts for name in variables(text))
    missing = tuple(name for name in named if not columns.has(name))
    return Guess(shape=None, columns=tuple(map(str, row)), counts={}, missing=missing)
