"""The actor between the ranks and the driver: events and heartbeats one way, wishes the other."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launcher.driving.faults import Whereabouts
from launcher.driving.hangs import Beat
from trainer.pulse import Pulse

BEAT_S = 1.0
_ANSWER_S = 10.0

Event = tuple[str, dict[str, Any]]
"""What happened (`phase`, `step`, or a kind of `events.jsonl`) and its details."""


class Mailbox:
    """Holds what was told until the driver takes it. All times are by this process's clock, so
    those of the nodes may differ."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False
        self._ranks: dict[int, Whereabouts] = {}
        self._pulses: dict[int, Pulse] = {}
        self._heard: dict[int, float] = {}
        self._moved: dict[int, float] = {}

    def put(self, event: Event) -> None:
        self._events.append(event)

    def beat(self, rank: int, where: Whereabouts, pulse: Pulse) -> None:
        now = time.monotonic()
        known = self._pulses.get(rank)
        if known is None or known.marks != pulse.marks:
            self._moved[rank] = now
        self._ranks[rank], self._pulses[rank], self._heard[rank] = where, pulse, now

    def take(self) -> tuple[list[Event], dict[int, Whereabouts], dict[int, Beat]]:
        events, self._events = self._events, []
        now = time.monotonic()
        beats = {
            rank: Beat(
                phase=pulse.phase,
                step=pulse.step,
                marks=pulse.marks,
                age_s=now - self._heard[rank],
                still_s=now - self._moved[rank],
            )
            for rank, pulse in self._pulses.items()
        }
        return events, self._ranks, beats

    def request_stop(self) -> None:
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop


def open_mailbox() -> Any:
    """A mailbox on the driver's own node: it must not be lost with a node of the ranks.

    Ray 2.60 puts an actor that takes no resources on any node if the affinity is soft.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here).remote()


class MailboxReporter:
    """The trainer's reporter on the side of the worker."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def phase(self, name: str, done: int, total: int) -> None:
        self._put("phase", {"name": name, "done": done, "total": total})

    def step(self, metrics: Mapping[str, Any]) -> None:
        self._put("step", metrics)

    def event(self, kind: str, details: Mapping[str, Any]) -> None:
        self._put(kind, details)

    def _put(self, kind: str, details: Mapping[str, Any]) -> None:
        self._mailbox.put.remote((kind, dict(details)))

    def stop_requested(self) -> bool:
        try:
            return bool(ray.get(self._mailbox.stop_requested.remote(), timeout=_ANSWER_S))
        except (GetTimeoutError, ActorUnavailableError):
            # An answer under way while a link is cut is given up by its sender after 20 s, which
            # who waits for it learns after 300 s (RAY_grpc_keepalive_timeout_ms and
            # RAY_grpc_client_keepalive_time_ms). The next step asks again.
            return False


def start_beating(mailbox: Any, rank: int, pulse: Pulse) -> None:
    """Tell from a thread of this process, once a second, where its rank is."""
    where = Whereabouts(
        node=ray.get_runtime_context().get_node_id(), host=socket.gethostname(), pid=os.getpid()
    )

    def beat() -> None:
        while True:
            mailbox.beat.remote(rank, where, pulse)
            time.sleep(BEAT_S)

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
