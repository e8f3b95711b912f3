"""The recipe's dataclasses looked at as a tree of fields: paths, types, defaults, one-line docs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

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
    def item(self) -> Any | None:
        """Of a list of objects, such as data.clean, their class; it reads and writes an entry."""
        found = typing.get_args(self.type) if typing.get_origin(self.type) is list else ()
        return found[0] if found and dataclasses.is_dataclass(found[0]) else None

    @property
    def allowed(self) -> str:
        return describe(self.type)


@cache
def sections() -> dict[str, tuple[type, ...]]:
    """The sections by name, in the order of the recipe: the class of each, or those of its kinds,
    of which the first is the default."""
    hints = typing.get_type_hints(Recipe)
    return {name: classes for name, kind in hints.items() if (classes := _classes(kind))}


@cache
def kinds(section: str) -> dict[str, type]:
    """The classes of a section by what its `kind` says; none for a section that has but one."""
    classes = sections()[section]
    if len(classes) == 1:
        return {}
    return {typing.get_args(typing.get_type_hints(c)["kind"])[0]: c for c in classes}


def _classes(kind: Any) -> tuple[type, ...]:
    """The dataclasses that a section may be; none when it is no section."""
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return members if all(dataclasses.is_dataclass(member) for member in members) else ()


@cache
def fields() -> dict[str, Field]:
    """Every leaf of the recipe by its path, in order: top level first, then section by section. Of
    a section with kinds those of all; one that several have is told as the first has it."""
    leaves = fields_of(Recipe, prefix="")
    for name, classes in sections().items():
        for kind in classes:
            leaves += fields_of(kind, prefix=f"{name}.")
    found: dict[str, Field] = {}
    for leaf in leaves:
        found.setdefault(leaf.path, leaf)
    for name in sections():
        if known := kinds(name):
            path = f"{name}.kind"
            found[path] = dataclasses.replace(found[path], type=Literal[tuple(known)])
    return found


@cache
def fields_of(kind: type, prefix: str) -> list[Field]:
    """The leaves of one class, in order."""
    hints = typing.get_type_hints(kind)
    return [
        Field(
            path=prefix + field.name,
            type=hints[field.name],
            default=_default(field),
            owner=_owner(kind, field.name),
        )
        for field in dataclasses.fields(kind)
        if not _classes(hints[field.name])
    ]


def _owner(kind: type, name: str) -> type:
    """The class whose source has a field."""
    return next(c for c in kind.__mro__ if name in inspect.get_annotations(c))


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


_WORDS = {
    Any: "any value",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


def describe(kind: Any) -> str:
    """A type in plain words: `a whole number or null`, `one of a, b`, `a list of texts`."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(kind))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        return " or ".join([*(describe(arg) for arg in inner), "null"])
    if typing.get_origin(kind) is dict:
        return f"names, each with {describe(typing.get_args(kind)[1])}"
    if typing.get_origin(kind) is list:
        item: Any = typing.get_args(kind)[0]
        if (described := getattr(item, "described", None)) is not None:
            return f"a list, each {described}"
        words = describe(item)
        return f"a list, each {words}"
    return _WORDS[kind]
