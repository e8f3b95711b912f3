"""Telling a loss that is no number, or a spike, from the others."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

RECENT = 20
"""Losses that a spike is measured against."""


class LossWatch:
    """Every rank sees the same losses, so all of them find the same ones bad."""

    def __init__(self, spike_factor: float | None, recent: Iterable[float]) -> None:
        self._factor = spike_factor
        self._recent = deque(recent, maxlen=RECENT)

    @property
    def recent(self) -> tuple[float, ...]:
        """The last good losses, to go on from."""
        return tuple(self._recent)

    def why_bad(self, loss: float) -> str | None:
        """What is wrong with a loss; None, and it is remembered, when nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if self._factor is not None and len(self._recent) == RECENT:
            usual = statistics.median(self._recent)
            if loss > self._factor * usual:
                return (
                    f"the loss is {loss:.4g}, more than failure.spike_factor = {self._factor:g} "
                    f"times {usual:.4g}, the median of the {RECENT} steps before"
                )
        self._recent.append(loss)
        return None
