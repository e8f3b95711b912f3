"""Asking the nodes of the connected Ray cluster: one that is silent holds up no other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Silent:
    """In the place of an answer: why there is none, in one line."""

    why: str


def nodes() -> dict[str, str]:
    """The host's name of each node that is alive, by Ray's id."""
    return {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}


def offers(node: str) -> dict[str, float]:
    """What a node (Ray's id) has for tasks and actors, by Ray's names: CPU, GPU, …"""
    return next((dict(one["Resources"]) for one in ray.nodes() if one["NodeID"] == node), {})


def on(node: str) -> NodeAffinitySchedulingStrategy:
    """The scheduling strategy of what must run on this node (Ray's id), or not at all."""
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def ask(asked: Collection[str], function: Any, *arguments: Any, timeout_s: float) -> dict[str, Any]:
    """What a remote function returns on each of these nodes, all asked at once, or `Silent`. It is
    given the node's id first."""
    pending = {
        node: function.options(scheduling_strategy=on(node)).remote(node, *arguments)
        for node in asked
    }
    return answers(pending, timeout_s)


def answers(pending: Mapping[_Key, Any], timeout_s: float) -> dict[_Key, Any]:
    """What has come of results under way, by their keys, when all have or the time is over; each a
    value, or `Silent`."""
    references = list(pending.values())
    if not references:
        return {}
    ready, _ = ray.wait(references, num_returns=len(references), timeout=timeout_s)
    come = set(ready)
    return {
        key: _answer(reference) if reference in come else Silent(f"no answer for {timeout_s:g} s")
        for key, reference in pending.items()
    }


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # Of an error that was raised there the last line tells what it was, of Ray's own the first.
        is_theirs = isinstance(error, ray.exceptions.RayTaskError) or "Traceback" in str(error)
        return Silent((lines[-1] if is_theirs else lines[0]) if lines else type(error).__name__)
