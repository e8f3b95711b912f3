"""What tests of runs on a lab's machines look at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lab.lab import wait_until
from lab.ray_cluster import RayCluster

SHOAL = str(Path(sys.executable).parent / "shoal")
STEPS = 300
"""Of a run in the workplace of `tests/cluster`."""

# Ray Data keeps these for the next run, and for others: one each for a cluster.
_OF_RAY_DATA = ("ray::_StatsActor", "ray::_AutoscalingCoordinatorActor")


def steps_of(run: Path) -> int:
    """Steps that a run has on record."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def events_of(run: Path) -> list[str]:
    """Kinds of a run's events, in their order."""
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def assert_nothing_left(cluster: RayCluster) -> None:
    """Nothing of a run on any machine that is on; a frozen rank needs up to three minutes."""

    def left() -> list[str]:
        workers = [each for m in cluster.machines if m.is_on for each in cluster.workers(m)]
        titles = [" ".join(each.cmdline()).strip() for each in workers if each.is_running()]
        return [title for title in titles if not title.startswith((*_OF_RAY_DATA, "ray::IDLE"))]

    wait_until(lambda: not left(), 240, lambda: f"left: {left()}")
    assert [m.shared_memory() for m in cluster.machines if m.is_on and m.shared_memory()] == []
