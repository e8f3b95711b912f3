"""What a run does when something goes wrong: how often it starts again, and how long it waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    max_restarts: int = 5
    """Restarts in a row without a new checkpoint between them; 0 never restarts."""

    backoff_s: float = 1.0
    """Wait before the first restart in a row (seconds); doubles with each, up to five minutes."""

    wait_s: float = 600.0
    """How long to wait for room: for enough workers, or on a full disk (seconds)."""

    start_s: float = 600.0
    """Workers that have not started by then are killed and started again (seconds)."""

    hang_s: float | None = None
    """Restart when a step is this late (seconds); left out, ten steps and at least a minute."""

    bad_loss: Literal["stop", "skip", "rewind"] = "stop"
    """At a loss that is no number or a spike: end; leave out its batch; or all since the save."""

    spike_factor: float | None = None
    """A loss above this many times the median of the 20 before is a spike; none when left out."""

    def problems(self) -> Iterator[Problem]:
        for name in ("max_restarts", "backoff_s", "wait_s"):
            value = getattr(self, name)
            if value < 0:
                yield Problem(
                    path=f"failure.{name}", value=value, message="is negative", allowed="≥ 0"
                )
        if self.start_s < 1:
            yield Problem(
                path="failure.start_s", value=self.start_s, message="is too short", allowed="≥ 1"
            )
        if self.hang_s is not None and self.hang_s < 1:
            yield Problem(
                path="failure.hang_s", value=self.hang_s, message="is too short", allowed="≥ 1"
            )
        if self.spike_factor is not None and self.spike_factor <= 1:
            yield Problem(
                path="failure.spike_factor",
                value=self.spike_factor,
                message="would call every step a spike",
                allowed="> 1",
            )
