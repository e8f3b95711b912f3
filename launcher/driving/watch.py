"""Watching over the ranks of an attempt: naming one that is late, and ending a hang."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import nodes
from launcher.driving.faults import Whereabouts
from launcher.driving.hangs import Beat, Late, find_late

_WORKER = "RayTrainWorker"
# Of a thousand ranks that wait for something together, the stacks of some tell what it is.
_LOOKED_AT = 8


@dataclass(slots=True, kw_only=True)
class Watch:
    """What is known of an attempt's pace, and of who holds it up."""

    num_ranks: int
    start_s: float
    hang_s: float | None
    logs: Path
    on_event: Callable[[str, Mapping[str, Any]], None]
    hang: str | None = None
    """What hung, once its processes were killed for it."""
    hung_node: str | None = None
    unheard_nodes: set[str] = field(default_factory=set)
    """Nodes that do not answer, and whose ranks are silent, since the last step."""
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    _named: set[bool] = field(default_factory=set)
    """Of the step under way, whether late ranks were named that are heard (False) and such that are
    silent (True): a link may be cut while a rank is late already."""
    _begun: float = field(default_factory=time.monotonic)

    @property
    def step_s(self) -> float | None:
        """Usual time of a step."""
        return statistics.median(self._steps) if self._steps else None

    def step_took(self, seconds: float) -> None:
        self._steps.append(seconds)
        self._named.clear()
        self.unheard_nodes.clear()

    def look(self, ranks: Mapping[int, Whereabouts], beats: Mapping[int, Beat]) -> None:
        """Name who is late, once in a step; kill its process when it is late for too long."""
        if self.hang is not None:
            return
        if len(beats) < self.num_ranks:
            self._look_at_start(ranks)
            return
        late, act = find_late(
            beats, num_ranks=self.num_ranks, step_s=self.step_s, hang_s=self.hang_s
        )
        if late is None:
            return
        if late.silent not in self._named:
            self._named.add(late.silent)
            self._tell(late, ranks, beats)
        if act:
            self._end(late, ranks, beats)

    def _look_at_start(self, ranks: Mapping[int, Whereabouts]) -> None:
        """End workers that are not heard of although they should have started."""
        waited = time.monotonic() - self._begun
        if waited < self.start_s:
            return
        heard = {(where.node, where.pid) for where in ranks.values()}
        silent = [place for place in nodes.actor_processes(_WORKER) if place not in heard]
        looked = [
            f"process {pid} is {found.status}"
            for (_, pid), found in zip(silent, nodes.look_at(silent[:_LOOKED_AT]), strict=False)
        ]
        self.hang = (
            f"{self.num_ranks - len(ranks)} of {self.num_ranks} workers did not start in "
            f"{waited:.0f} s ({', '.join(looked) or 'there is no process'})"
        )
        nodes.kill(silent)

    def _tell(
        self, late: Late, ranks: Mapping[int, Whereabouts], beats: Mapping[int, Beat]
    ) -> None:
        told = late.ranks[:_LOOKED_AT]
        found = nodes.look_at([(ranks[rank].node, ranks[rank].pid) for rank in told])
        for rank, looked in zip(told, found, strict=True):
            where, beat = ranks[rank], beats[rank]
            if where.node in self.unheard_nodes:
                continue  # told already, of another rank
            is_unheard = late.silent and looked.status == nodes.NOT_REACHED
            if is_unheard:
                self.unheard_nodes.add(where.node)
            file = self.logs / f"late_rank_{rank:03d}.txt"
            head = f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}, {_text(rank, where, beat)} ---\n"
            with suppress(OSError), file.open("a", encoding="utf-8") as stream:
                stream.write(f"{head}{looked.status}\n{looked.stack}\n")
            self.on_event(
                "late",
                {
                    "rank": rank,
                    "host": where.host,
                    "node": where.node,
                    "pid": where.pid,
                    "phase": beat.phase,
                    "step": beat.step,
                    "late_s": round(late.late_s, 1),
                    "limit_s": round(late.limit_s, 1),
                    "status": looked.status,
                    "late_ranks": len(late.ranks),
                    "is_unheard": is_unheard,
                    "alone": len(late.ranks) < self.num_ranks,
                    "stack": str(file),
                },
            )

    def _end(self, late: Late, ranks: Mapping[int, Whereabouts], beats: Mapping[int, Beat]) -> None:
        first = late.ranks[0]
        self.hang = f"{_text(first, ranks[first], beats[first])}, was late by {late.late_s:.0f} s"
        if len(late.ranks) < self.num_ranks:
            self.hung_node = ranks[first].node
        nodes.kill([(ranks[rank].node, ranks[rank].pid) for rank in late.ranks])


def _text(rank: int, where: Whereabouts, beat: Beat) -> str:
    return f"rank {rank} on {where.host} (process {where.pid}), step {beat.step}, {beat.phase}"
