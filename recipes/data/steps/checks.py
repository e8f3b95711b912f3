"""What can be wrong with the options of several steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from recipes.problem import Problem


def bounds(place: str, least: int, most: int | None) -> Iterator[Problem]:
    """The problems of `min` and `max`."""
    if least < 0:
        yield Problem(path=f"{place}.min", value=least, message="is below 0", allowed="≥ 0")
    if most is not None and most < least:
        yield Problem(path=f"{place}.max", value=most, message=f"is below min = {least}")


def share(path: str, value: float) -> Iterator[Problem]:
    """The problem of a number that is no share of a whole."""
    if not 0.0 <= value <= 1.0:
        yield Problem(path=path, value=value, message="is not a share", allowed="0 ≤ value ≤ 1")


def at_least(path: str, value: int, least: int) -> Iterator[Problem]:
    """The problem of a number that is too small."""
    if value < least:
        yield Problem(path=path, value=value, message="is too small", allowed=f"≥ {least}")


def pattern(place: str, value: str, replacement: str = "") -> Iterator[Problem]:
    """The problem of a regular expression, or of what is put in place of its matches."""
    try:
        compiled = re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        yield Problem(
            path=f"{place}.pattern",
            value=value,
            message=f"is no regular expression: {error}",
            hint="It is one of Python's `re`; in YAML single quotes keep its backslashes",
        )
        return
    try:
        compiled.sub(replacement, "")
    except (re.error, IndexError) as error:
        yield Problem(
            path=f"{place}.replacement",
            value=replacement,
            message=f"does not fit the pattern: {error}",
            hint="\\1 and \\g<name> stand for groups of the pattern",
        )


def not_empty(path: str, values: Sequence[str] | str) -> Iterator[Problem]:
    """The problem of an option that must say something."""
    if not values or (isinstance(values, str) and not values.strip()):
        yield Problem(path=path, value=values, message="is empty")
