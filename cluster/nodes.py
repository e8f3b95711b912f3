"""The nodes of the connected Ray cluster: what they have room for, and processes on them."""

from __future__ import annotations

import sysconfig
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from cluster.asking import Silent, answers, on
from cluster.process import CommandError, run
from recipes.cluster import Cluster

NOT_REACHED = "not reached"
"""In the place of a process's status: its node does not answer."""

_LOOK_S = 10.0

Place = tuple[str, int]
"""A process: its node by Ray's id, and its number there."""


def alive() -> set[str]:
    """Nodes that are alive, by Ray's ids."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def own_node() -> str:
    """The node that this process is connected to, by Ray's id."""
    return str(ray.get_runtime_context().get_node_id())


def name_of(node: str) -> str | None:
    """The name of a node by Ray's id, also of one that is gone: in a job its scheduler's, elsewhere
    its address."""
    return next((str(one["NodeName"]) for one in ray.nodes() if one["NodeID"] == node), None)


def workers_that_fit(cluster: Cluster, *, gpu: bool, avoid: Collection[str] = ()) -> int:
    """Workers that the free resources of the nodes hold, nodes to `avoid` (Ray's ids) left out."""
    # In this order: a drained node that dies meanwhile stands in the second answer only, as free.
    closed = {*avoid, *draining()}
    free = ray._private.state.available_resources_per_node()
    there = alive()
    free = {node: of_node for node, of_node in free.items() if node in there}
    return room_for(cluster, free, gpu=gpu, closed=closed)


def room_for(
    cluster: Cluster,
    free: Mapping[str, Mapping[str, float]],
    *,
    gpu: bool,
    closed: Collection[str] = (),
) -> int:
    """Workers that these free resources hold, given by node; a worker lies on one node as a whole.
    Nodes that are `closed` count nothing."""
    needed = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if gpu else {})
    return sum(
        int(min(of_node.get(name, 0.0) // amount for name, amount in needed.items()))
        for node, of_node in free.items()
        if node not in closed
    )


def draining() -> dict[str, float | None]:
    """Nodes that are about to be taken away, and when (s since 1970), if that is known."""
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return {node: milliseconds / 1000 or None for node, milliseconds in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A process as it is found on its node: what the system says of it, and its Python stack."""

    status: str
    """Such as running, sleeping or stopped; gone; or `NOT_REACHED`."""
    stack: str
    """Empty where it could not be read."""


def look_at(places: Sequence[Place]) -> list[Looked]:
    """Look at processes from outside: they need not be able to answer."""
    return [
        found if found is not None else Looked(status=NOT_REACHED, stack="")
        for found in _on_each(_look, places)
    ]


def kill(places: Sequence[Place]) -> None:
    """Kill processes of ours where their nodes can be reached."""
    _on_each(_kill, places)


def actor_processes(class_name: str) -> list[Place]:
    """Each living actor of a class that this driver, or an actor of its, has started."""
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    table = ray._private.state.state.actor_table(None, job, "ALIVE").values()
    return [
        (actor["Address"]["NodeID"], actor["Pid"])
        for actor in table
        if actor["ActorClassName"] == class_name
    ]


def kill_here(pids: Collection[int]) -> None:
    """Kill workers of Ray on this machine, without asking Ray."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            # The number may have a new owner; one that is just ending has no command any more.
            if "".join(process.cmdline()[:1]).startswith("ray::"):
                process.kill()


def _on_each(function: Any, places: Sequence[Place]) -> list[Any]:
    """What a remote function finds of each process, on all nodes at the same time; None when its
    node does not answer in time. However many nodes are gone, that is waited for once."""
    asked = {
        number: function.options(scheduling_strategy=on(node)).remote(pid)
        for number, (node, pid) in enumerate(places)
    }
    found = answers(asked, _LOOK_S).values()
    return [None if isinstance(answer, Silent) else answer for answer in found]


@ray.remote(num_cpus=0, max_retries=0)
def _look(pid: int) -> Looked:
    try:
        status = str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return Looked(status="gone", stack="")
    try:
        # A stopped process cannot be paused to be read, and need not be.
        program = str(Path(sysconfig.get_path("scripts")) / "py-spy")
        stack = run([program, "dump", "--nonblocking", "--pid", str(pid)], timeout_s=_LOOK_S / 2)
    except CommandError as error:
        return Looked(status=status, stack=str(error))
    return Looked(status=status, stack=stack.stdout)


@ray.remote(num_cpus=0, max_retries=0)
def _kill(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
    return True
