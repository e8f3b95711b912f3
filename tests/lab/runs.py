"""What tests of runs on a lab's machines look at."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil

from lab.lab import wait_until
from lab.ray_cluster import RayCluster
from launcher.records.runs import read_events

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
    return [event["event"] for event in read_events(run)]


def assert_nothing_left(cluster: RayCluster) -> None:
    """Nothing of a run on any machine that is on; a frozen rank needs up to three minutes."""

    def left() -> list[str]:
        workers = [each for m in cluster.machines if m.is_on for each in cluster.workers(m)]
        titles = []
        for each in workers:
            with suppress(psutil.NoSuchProcess):  # ended meanwhile, or a zombie
                titles.append(" ".join(each.cmdline()).strip())
        return [title for title in titles if not title.startswith((*_OF_RAY_DATA, "ray::IDLE"))]

    wait_until(lambda: not left(), 400, lambda: f"left: {left()}")
    assert [m.shared_memory() for m in cluster.machines if m.is_on and m.shared_memory()] == []
