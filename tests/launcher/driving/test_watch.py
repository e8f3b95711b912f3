"""Who is named of the ranks that are late."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import nodes
from launcher.driving.faults import Whereabouts
from launcher.driving.hangs import Beat
from launcher.driving.watch import Watch

RANKS = {rank: Whereabouts(node=f"node-{rank}", host=f"n{rank}", pid=7) for rank in (0, 1)}
LATE = Beat(phase="backward", step=7, marks=9, age_s=1.0, still_s=100.0)
SILENT = Beat(phase="backward", step=7, marks=9, age_s=100.0, still_s=100.0)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Nodes that do not answer."""
    gone: set[str] = set()

    def look_at(places: list[nodes.Place]) -> list[nodes.Looked]:
        words = [nodes.NOT_REACHED if node in gone else "running" for node, _ in places]
        return [nodes.Looked(status=word, stack="") for word in words]

    monkeypatch.setattr(nodes, "look_at", look_at)
    return gone


def test_a_rank_is_named_once_in_a_step_and_again_when_its_link_is_cut(
    tmp_path: Path, cut_off: set[str]
):
    told: list[tuple[int, bool]] = []

    def note(_: str, details: Mapping[str, Any]) -> None:
        told.append((details["rank"], details["is_unheard"]))

    watch = Watch(num_ranks=2, start_s=60, hang_s=1000, logs=tmp_path, on_event=note)
    watch.step_took(1.0)
    for _ in range(2):
        watch.look(RANKS, {0: LATE, 1: LATE})
    assert told == [(0, False), (1, False)]
    cut_off.add("node-1")
    for _ in range(2):
        watch.look(RANKS, {0: LATE, 1: SILENT})
    assert told[2:] == [(1, True)]
    assert watch.unheard_nodes == {"node-1"}
    watch.step_took(1.0)
    assert watch.unheard_nodes == set()
    watch.look(RANKS, {0: LATE, 1: LATE})
    assert told[3:] == [(0, False), (1, False)]
