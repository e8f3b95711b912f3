"""One entry of data.train or data.held_out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any, ClassVar

from recipes.data.shapes import Shape
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files that belong together: a path alone, or a mapping with these keys."""

    path: str
    """File, folder, pattern with `*`, address such as s3://bucket/folder, or `sample:NAME`."""

    name: str | None = None
    """What the source is called in counts and losses; the last part of its path when left out."""

    weight: float | None = None
    """Its share of the training samples among all sources with a weight, see data.mix."""

    limit: int | None = None
    """Take this many rows, the first ones; null takes all."""

    format: Shape | None = None
    """Shape of its rows; data.format when left out."""

    columns: dict[str, str] = field(default_factory=dict)
    """Names of its columns by the names shoal knows, before those of data.columns."""

    described: ClassVar[str] = "a path, or a mapping with path"

    paths: ClassVar[tuple[str, ...]] = ("path",)
    """Keys that hold paths."""

    functions: ClassVar[tuple[str, ...]] = ()
    """Keys that name functions."""

    @classmethod
    def kind_of(cls, value: Any, place: str, problems: list[Problem]) -> type[Source] | None:
        """This class for an entry as it stands in a recipe; None after a problem."""
        if isinstance(value, str | Mapping):
            return cls
        allowed = "a path, or a mapping with path"
        problems.append(Problem(path=place, value=value, message="is no source", allowed=allowed))
        return None

    @staticmethod
    def options_of(value: Any) -> Any:
        """The keys of an entry as it stands in a recipe."""
        return {"path": value} if isinstance(value, str) else value

    def plain(self) -> Any:
        """The entry as it stands in a recipe: the path alone where nothing else is said."""
        given = {
            leaf.name: getattr(self, leaf.name)
            for leaf in fields(self)
            if getattr(self, leaf.name) not in (None, {})
        }
        return self.path if set(given) == {"path"} else given

    @property
    def called(self) -> str:
        """Its name, or what its path suggests."""
        return self.name or PurePath(self.path.rstrip("/")).name.split(".")[0] or self.path

    def problems(self, place: str) -> Iterator[Problem]:
        if not self.path.strip():
            yield Problem(path=f"{place}.path", value=self.path, message="names no file")
        if self.weight is not None and not 0 < self.weight < float("inf"):
            yield Problem(
                path=f"{place}.weight", value=self.weight, message="is no weight", allowed="> 0"
            )
        if self.limit is not None and self.limit < 1:
            yield Problem(
                path=f"{place}.limit", value=self.limit, message="takes no row", allowed="≥ 1"
            )
