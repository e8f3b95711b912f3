"""Where a rank is: what whoever watches over it wants to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pulse:
    """Set by the rank's own thread, read by others at any time.

    All ranks make the same marks in the same order, so the one with the fewest is the one that the
    others wait for.
    """

    phase: str = "starting"
    step: int = 0
    marks: int = 0

    def mark(self, phase: str, step: int) -> None:
        """The rank enters a phase of a step (counted from 1; 0 is before the first)."""
        self.phase, self.step = phase, step
        self.marks += 1
