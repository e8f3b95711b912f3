"""Rules that keys of several kinds share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recipes.problem import Problem


def at_least(least: int, values: Mapping[str, Any], message: str) -> Iterator[Problem]:
    for name, value in values.items():
        if value is not None and value < least:
            yield Problem(
                path=f"adapter.{name}", value=value, message=message, allowed=f"≥ {least}"
            )


def shares(values: Mapping[str, float]) -> Iterator[Problem]:
    for name, value in values.items():
        if not 0.0 <= value < 1.0:
            yield Problem(
                path=f"adapter.{name}",
                value=value,
                message="is not a share",
                allowed="0 ≤ value < 1",
            )
