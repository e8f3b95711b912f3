"""Measuring the network between nodes of the connected Ray cluster, every pair once.

In a round a node is in one pair at most, so pairs do not take from each other, and n nodes take
about n rounds. A node goes by Ray's id here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.asking import Silent, answers, on
from launcher.doctor.links import Link, Pair, rounds
from launcher.doctor.peer import LIMIT_S, Peer
from launcher.doctor.probe import Address

_ROUND_TRIP_S = 20.0
# The first start of torch on a busy node takes a while.
_READY_S = 180.0
_PEER_S = 3 * LIMIT_S

Progress = Callable[[str, int, int], None]


def links(probes: Mapping[str, Any], *, gpus: Sequence[str], progress: Progress) -> list[Link]:
    """The way between each two of the nodes that have these probes; by NCCL between those with
    `gpus`, or if there are none by gloo between all."""
    trips = _round_trips_s(probes, progress)
    speeds = _speeds(gpus or list(probes), gpu=bool(gpus), progress=progress)
    return [_link(pair, trip, speeds.get(pair)) for pair, trip in trips.items()]


def _link(pair: Pair, trip: float | str, speed: float | str | None) -> Link:
    wrong = [text for text in (trip, speed) if isinstance(text, str)]
    return Link(
        nodes=pair,
        latency_s=trip if isinstance(trip, float) else None,
        bytes_per_s=speed if isinstance(speed, float) else None,
        error=wrong[0] if wrong else "",
    )


def _round_trips_s(probes: Mapping[str, Any], progress: Progress) -> dict[Pair, float | str]:
    """The slower direction of every pair, or why there is none."""
    asked = {node: probe.listen.remote() for node, probe in probes.items()}
    listening = answers(asked, _ROUND_TRIP_S)
    found: dict[Pair, float | str] = {}
    every = rounds(list(probes))
    for number, pairs in enumerate(every, start=1):
        # One direction after the other: both at once would time each other.
        there = _one_way(pairs, probes, listening)
        back = _one_way([(b, a) for a, b in pairs], probes, listening)
        for a, b in pairs:
            both = (there[a, b], back[b, a])
            wrong = [one for one in both if isinstance(one, str)]
            found[a, b] = wrong[0] if wrong else max(both)
        progress("round trips", number, len(every))
    return found


def _one_way(
    pairs: Sequence[Pair],
    probes: Mapping[str, Any],
    listening: Mapping[str, Address | Silent],
) -> dict[Pair, float | str]:
    asked = {
        (a, b): probes[a].round_trip_s.remote(listening[b])
        for a, b in pairs
        if not isinstance(listening[b], Silent)
    }
    come = answers(asked, _ROUND_TRIP_S)
    every = {(a, b): come.get((a, b), listening[b]) for a, b in pairs}
    return {pair: _plain(answer) for pair, answer in every.items()}


def _speeds(nodes: Sequence[str], *, gpu: bool, progress: Progress) -> dict[Pair, float | str]:
    """Bytes per second of an all-reduce of every pair, or why there are none. A node that has
    fallen silent is not waited for again."""
    options = {"num_gpus": 1 if gpu else 0}
    peers = {
        node: Peer.options(scheduling_strategy=on(node), **options).remote()  # type: ignore[attr-defined]
        for node in nodes
    }
    silent = _silent(answers({n: peer.make_ready.remote() for n, peer in peers.items()}, _READY_S))
    found: dict[Pair, float | str] = {}
    every = rounds(nodes)
    for number, pairs in enumerate(every, start=1):
        left = [(a, b) for a, b in pairs if a not in silent and b not in silent]
        opened = answers({a: peers[a].open.remote() for a, _ in left}, _PEER_S)
        silent |= _silent(opened)
        joined = [(a, b) for a, b in left if a not in silent]
        asked = {a: peers[a].bytes_per_s.remote(None, gpu=gpu) for a, _ in joined}
        asked |= {b: peers[b].bytes_per_s.remote(opened[a], gpu=gpu) for a, b in joined}
        told = answers(asked, _PEER_S)
        silent |= _silent(told)
        for pair in pairs:
            reasons = [silent[node] for node in pair if node in silent]
            reasons += [told[node] for node in pair if isinstance(told.get(node), str)]
            found[pair] = reasons[0] if reasons else statistics.fmean(told[node] for node in pair)
        progress("all-reduce", number, len(every))
    return found


def _silent(told: Mapping[str, Any]) -> dict[str, str]:
    return {node: answer.why for node, answer in told.items() if isinstance(answer, Silent)}


def _plain(answer: Any) -> float | str:
    return answer.why if isinstance(answer, Silent) else answer
