"""The columns of a row by the names that shoal knows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.prepare.unusable import Unusable
from recipes.data import Data, Source

_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A row, and what it calls the columns that shoal knows by another name. A name with dots in
    it that is no column itself reaches into objects: `data.body`."""

    row: Mapping[str, Any]
    names: Mapping[str, str]

    def name_of(self, name: str) -> str:
        """What the row calls a column."""
        return self.names.get(name, name)

    def has(self, name: str) -> bool:
        """Whether the column is there, under its own name only if that is not said to be another's.

        With `{label: labels}` the row has no `labels` any more.
        """
        theirs = self.name_of(name)
        taken = name not in self.names and theirs in self.names.values()
        return not taken and look_up(self.row, theirs, _ABSENT) is not _ABSENT

    def get(self, name: str) -> Any:
        """The value of a column; None where it is not there, or is what tables have for that."""
        value = look_up(self.row, self.name_of(name), None) if self.has(name) else None
        return None if isinstance(value, float) and math.isnan(value) else value

    def check(self, name: str) -> None:
        """Raises `Unusable` when a column is not there."""
        if not self.has(name):
            raise Unusable("no known column", f"no {self.name_of(name)}; {self.told()}")

    def text(self, name: str) -> str:
        """The text in a column. Raises `Unusable`."""
        self.check(name)
        value = self.get(name)
        if not isinstance(value, str):
            raise Unusable("no text", f"{self.name_of(name)} is {type(value).__name__}")
        return value

    def text_or_none(self, name: str) -> str | None:
        """The text in a column that may be missing or empty. Raises `Unusable` for what is none."""
        value = self.get(name)
        return None if value is None or value == "" else self.text(name)

    def renamed(self, names: Mapping[str, str]) -> Columns:
        """The same row with these names for the columns that have not been given one."""
        return Columns(row=self.row, names={**names, **self.names} if self.names else names)

    def told(self) -> str:
        """The row's columns, for a message."""
        return f"columns: {', '.join(map(str, self.row))}"[:_SHOWN]


_ABSENT: Any = object()


def look_up(row: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """The value of a column, or of what a dotted name leads to in objects."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return otherwise
        value = value[part]
    return value


def columns_of(row: Mapping[str, Any], data: Data, source: Source | None) -> Columns:
    """A row with the names that its source, or else the recipe, gives its columns."""
    theirs = source.columns if source is not None else {}
    return Columns(row=row, names={**data.columns, **theirs} if theirs else data.columns)


def plain_json(value: Any, reason: str, what: str) -> Any:
    """A value as JSON knows it, or the JSON that a text holds. Raises `Unusable` with the reason:
    there are numbers, dates and depths that JSON does not have."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        return json.loads(text, parse_constant=_refuse)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unusable(reason, f"{what} is no JSON: {str(error)[:_SHOWN]}") from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
