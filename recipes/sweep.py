"""A sweep: one recipe for each combination of the values that some keys take."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes import schema
from recipes.errors import RecipeError
from recipes.load import COMMAND_LINE, LoadedRecipe, load, unknown

_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_VALUE_BEGINS_AFTER = ("", ",", ":", *_BRACKETS)
# A name is a folder's, which may have 255 bytes.
_LONGEST_VALUE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One run of a sweep: the recipe, and the values by which it differs from the others."""

    loaded: LoadedRecipe
    changes: Mapping[str, str]
    """Values as they were written, by their keys."""
    sweep: str
    """The recipe's own name."""


def members(reference: str | Path, overrides: Sequence[str], sweeps: Sequence[str]) -> list[Member]:
    """The runs of a sweep, each `key=a,b,c` of `sweeps` with each of the others; the last key's
    values change first.

    Raises `RecipeError` with every problem of every combination.
    """
    values = _values(sweeps, overrides)
    combinations = [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]
    found: list[Member] = []
    wrong: list[tuple[Mapping[str, str], str]] = []
    for changes in combinations:
        try:
            loaded = load(reference, [*overrides, *_overrides(changes)])
        except RecipeError as error:
            wrong.append((changes, str(error)))
            continue
        named = _named(loaded, changes)
        found.append(Member(loaded=named, changes=changes, sweep=loaded.recipe.name))
    if wrong:
        raise RecipeError(report(wrong, len(combinations)))
    return found


def report(wrong: Sequence[tuple[Mapping[str, str], str]], count: int) -> str:
    """What is wrong with some of `count` combinations, each problem told once, with whose it is."""
    owners: dict[str, list[str]] = {}
    for changes, problem in wrong:
        owners.setdefault(problem, []).append(", ".join(_overrides(changes)))
    lines = [f"--sweep: {len(wrong)} of {count} combinations have problems"]
    for problem, whose in owners.items():
        lines.append(f"{'; '.join(whose) if len(whose) < count else 'all of them'}:")
        lines += [f"  {line}" for line in problem.splitlines()]
    return "\n".join(lines)


def _values(sweeps: Sequence[str], overrides: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    fixed = {override.partition("=")[0].strip() for override in overrides}
    for sweep in sweeps:
        key, equals, text = sweep.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RecipeError(
                f"--sweep {sweep}: names no values; write --sweep key=a,b,c, such as "
                "--sweep adapter.r=4,8,16"
            )
        if key == "name":
            raise RecipeError("--sweep name: each run of a sweep gets a name of its own")
        if key not in schema.fields():
            raise RecipeError(f"--sweep {unknown(key)}")
        if key in found or key in fixed:
            other = "another --sweep" if key in found else "an override"
            raise RecipeError(f"--sweep {key}: is given by {other} too; leave one of them out")
        found[key] = list(_split(key, text))
        twice = {value for value in found[key] if found[key].count(value) > 1}
        if twice:
            raise RecipeError(f"--sweep {key}: has the value {min(twice)} twice")
    return found


def _split(key: str, text: str) -> Iterator[str]:
    """The values of a list without brackets: at its commas, less those inside of a value."""
    begin, closing, quote, before = 0, "", "", ""
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and before in _VALUE_BEGINS_AFTER:  # an apostrophe begins none
            quote = letter
        elif letter in _BRACKETS:
            closing = _BRACKETS[letter] + closing
        elif letter == closing[:1]:
            closing = closing[1:]
        elif letter == "," and not closing:
            yield _value(key, text[begin:position])
            begin = position + 1
        before = letter if not letter.isspace() else before
    if quote or closing:
        raise RecipeError(f"--sweep {key}: {text}: a {quote or closing[0]} is missing at the end")
    yield _value(key, text[begin:])


def _value(key: str, text: str) -> str:
    if not text.strip():
        raise RecipeError(
            f"--sweep {key}: has an empty value; write null for none, or '\"\"' for an empty text"
        )
    return text.strip()


def _overrides(changes: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in changes.items()]


def _named(loaded: LoadedRecipe, changes: Mapping[str, str]) -> LoadedRecipe:
    """With a name that tells the values."""
    lasts = [key.rpartition(".")[2] for key in changes]
    parts = [loaded.recipe.name]
    for (key, value), last in zip(changes.items(), lasts, strict=True):
        parts.append(f"{last if lasts.count(last) == 1 else key}={_in_a_name(value)}")
    recipe = dataclasses.replace(loaded.recipe, name="_".join(parts))
    origins = {**loaded.origins, "name": COMMAND_LINE}
    return dataclasses.replace(loaded, recipe=recipe, origins=origins)


def _in_a_name(value: str) -> str:
    """A value as a part of a folder's name: without what shells and paths give a meaning."""
    plain = re.sub(r"[^\w.+-]+", "_", value).strip("_")
    if len(plain) <= _LONGEST_VALUE:
        return plain
    return f"{plain[: _LONGEST_VALUE - 7]}_{hashlib.sha256(value.encode()).hexdigest()[:6]}"
