"""When the adapter and the optimizer state are saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    every_steps: int | None = None
    """Save after this many steps; the end of the run is always saved."""

    keep: int = 2
    """Newest checkpoints kept; older ones are deleted."""

    def problems(self) -> Iterator[Problem]:
        for name in ("every_steps", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(
                    path=f"checkpoint.{name}", value=value, message="is too small", allowed="≥ 1"
                )
