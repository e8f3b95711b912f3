"""When the adapter and the optimizer state are saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    every_steps: int | None = None
    """Save after this many steps; the end of the run is always saved."""

    every_minutes: float | None = 10.0
    """Save when this much time has passed since the last save, whatever the step."""

    keep: int = 2
    """Newest checkpoints kept; older ones are deleted."""

    keep_every_steps: int | None = None
    """Checkpoints of every so many steps are kept for ever."""

    keep_best: int = 0
    """Best checkpoints kept besides; measured ones only, see evaluate.every_steps."""

    best_by: Literal["loss", "accuracy", "f1", "exact_match", "f1_micro"] = "loss"
    """Score on the held-out rows that tells the best; the last two are of several labels."""

    prove: bool = True
    """Open a run's first checkpoint in a fresh process and compare its logits, before it counts."""

    def problems(self) -> Iterator[Problem]:
        for name in ("every_steps", "keep", "keep_every_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(
                    path=f"checkpoint.{name}", value=value, message="is too small", allowed="≥ 1"
                )
        if self.keep_best < 0:
            yield Problem(
                path="checkpoint.keep_best",
                value=self.keep_best,
                message="is negative",
                allowed="≥ 0",
            )
        if self.every_minutes is not None and self.every_minutes <= 0:
            yield Problem(
                path="checkpoint.every_minutes",
                value=self.every_minutes,
                message="is too short",
                allowed="> 0",
            )
