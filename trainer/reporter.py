"""How a rank tells what it does: the one seam between the trainer and whoever started it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Reporter(Protocol):
    """Told by rank 0 only, but for `stop_requested`, which only rank 0 asks as well."""

    def phase(self, name: str, done: int, total: int) -> None:
        """`done` of `total` parts of a phase are done; a total of 0 is unknown."""

    def step(self, metrics: Mapping[str, Any]) -> None:
        """An optimizer step was taken; the keys are those of a line of metrics.jsonl."""

    def event(self, kind: str, details: Mapping[str, Any]) -> None:
        """Something worth keeping happened: `checkpoint`, `evaluated`, `memory`, `stopped`."""

    def stop_requested(self) -> bool:
        """Whether the run should save and stop after this step."""


class SilentReporter:
    """Tells nobody; for a rank that is run by itself."""

    def phase(self, name: str, done: int, total: int) -> None:
        pass

    def step(self, metrics: Mapping[str, Any]) -> None:
        pass

    def event(self, kind: str, details: Mapping[str, Any]) -> None:
        pass

    def stop_requested(self) -> bool:
        return False
