"""What was planned of a run beside what it took."""

from __future__ import annotations

import json
from pathlib import Path

from launcher.plan.comparison import compare


def assert_as_planned(run: Path) -> None:
    """Of a run of two workers on the small real model, which has ended."""
    plan = json.loads((run / "plan.json").read_text())
    off = {pair.what: pair.off for pair in compare(plan)}
    assert off["steps"] == off["samples"] == off["tokens"] == 0
    assert abs(off["host memory, worker"]) < 0.15
    assert abs(off["a checkpoint"]) < 0.02
    assert len(plan["measured"]["host_bytes"]) == 2
