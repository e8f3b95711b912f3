"""What tests of runs on a lab's machines look at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

SHOAL = str(Path(sys.executable).parent / "shoal")
STEPS = 300
"""Of a run in the workplace of `tests/cluster`."""


def steps_of(run: Path) -> int:
    """Steps that a run has on record."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def events_of(run: Path) -> list[str]:
    """Kinds of a run's events, in their order."""
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
