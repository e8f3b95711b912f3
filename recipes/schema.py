"""The recipe's dataclasses looked at as a tree of fields: paths, types, defaults, one-line docs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any

from recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A leaf of the recipe. `default` is `dataclasses.MISSING` for a value that must be given."""

    path: str
    type: Any
    default: Any
    owner: type

    @property
    def doc(self) -> str:
        return docstrings(self.owner).get(self.path.rpartition(".")[2], "")

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def allowed(self) -> str:
        return describe(self.type)


def sections() -> dict[str, type]:
    """The sections by name, in the order of the recipe."""
    hints = typing.get_type_hints(Recipe)
    return {name: kind for name, kind in hints.items() if _is_section(kind)}


def _is_section(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


@cache
def fields() -> dict[str, Field]:
    """Every leaf of the recipe by its path, in order: top level first, then section by section."""
    leaves = _fields_of(Recipe, prefix="")
    for name, kind in sections().items():
        leaves += _fields_of(kind, prefix=f"{name}.")
    return {leaf.path: leaf for leaf in leaves}


def _fields_of(kind: type, prefix: str) -> list[Field]:
    hints = typing.get_type_hints(kind)
    return [
        Field(
            path=prefix + field.name,
            type=hints[field.name],
            default=_default(field),
            owner=kind,
        )
        for field in dataclasses.fields(kind)
        if not _is_section(hints[field.name])
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@cache  # parsing source is slow: only what needs a text pays for it
def docstrings(kind: type) -> dict[str, str]:
    """The string that follows each field in the source of a dataclass, by field name."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = str(text.value.value)
    return found


_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def describe(kind: Any) -> str:
    """A type in plain words: `a whole number or null`, `one of a, b`, `a list of texts`."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(kind))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        return " or ".join([*(describe(arg) for arg in inner), "null"])
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        words = describe(item)
        return f"a list, each {words}"
    return _WORDS[kind]
