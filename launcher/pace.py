"""How fast a phase goes: rows a second, and the time left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

# What was before is forgotten: a stage that goes on takes what it finds done at once.
_WINDOW_S = 30.0
# A rate from less than this is chance.
_TELLING_S = 1.0


@dataclass(slots=True)
class Pace:
    """Of one phase, from what it told: when (s), units done, rows in them."""

    seen: deque[tuple[float, int, int]] = field(default_factory=deque)
    first: tuple[float, int, int] | None = None

    def tell(self, now: float, done: int, rows: int) -> None:
        self.first = self.first or (now, done, rows)
        self.seen.append((now, done, rows))
        while len(self.seen) > 2 and self.seen[1][0] < now - _WINDOW_S:
            self.seen.popleft()

    @property
    def rows(self) -> int:
        return self.seen[-1][2] if self.seen else 0

    def rows_per_s(self) -> float | None:
        """Of late; None when too little was seen."""
        seconds, _, rows = self._of_late()
        return rows / seconds if rows and seconds >= _TELLING_S else None

    def seconds_left(self, total: int) -> float | None:
        """At the pace of late; None when too little was seen."""
        seconds, units, _ = self._of_late()
        if not units or seconds < _TELLING_S:
            return None
        return (total - self.seen[-1][1]) * seconds / units

    def overall(self) -> float | None:
        """Rows a second since the beginning; None when it took too little to tell."""
        if self.first is None or self.seen[-1][0] - self.first[0] < _TELLING_S or not self.rows:
            return None
        return (self.rows - self.first[2]) / (self.seen[-1][0] - self.first[0])

    def _of_late(self) -> tuple[float, int, int]:
        if len(self.seen) < 2:
            return 0.0, 0, 0
        (then, units, rows), (now, done, seen) = self.seen[0], self.seen[-1]
        return now - then, done - units, seen - rows
