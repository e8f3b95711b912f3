"""Rules that keys of several kinds share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from recipes.problem import Problem


def at_least(least: int, values: Mapping[str, Any], message: str) -> Iterator[Problem]:
    for name, value in values.items():
        if value is not None and value < least:
            yield Problem(
                path=f"adapter.{name}", value=value, message=message, allowed=f"≥ {least}"
            )


def scales(values: Mapping[str, float]) -> Iterator[Problem]:
    for name, value in values.items():
        if value <= 0:
            yield Problem(path=f"adapter.{name}", value=value, message="is no scale", allowed="> 0")


def shares(values: Mapping[str, float]) -> Iterator[Problem]:
    for name, value in values.items():
        if not 0.0 <= value < 1.0:
            yield Problem(
                path=f"adapter.{name}",
                value=value,
                message="is not a share",
                allowed="0 ≤ value < 1",
            )


def pattern_problems(path: str, patterns: Iterable[str]) -> Iterator[Problem]:
    """Of regular expressions that are none."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield Problem(path=path, value=pattern, message=f"is no regular expression: {error}")
