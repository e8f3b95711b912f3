"""A Ray cluster inside a SLURM job: every node runs `shoal node`, and lends itself to the first.

The first node listens until the others have come, starts Ray's head at the address by which they
reached it, and tells them; they start Ray too, start it again when it dies, and end it when the
first node goes away.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

import ray

from cluster.ray_node import QUIET, NodeOptions, RayNode, address_of_interface
from cluster.slurm import commands
from cluster.slurm.exclusion import Exclusion, exclusion, is_current
from cluster.slurm.membership import Membership
from cluster.slurm.rendezvous import Guest, Host, HostLost, MeetingOver
from recipes.cluster import Cluster
from recipes.errors import ClusterError
from recipes.listing import listed

_LOOPBACK = "127.0.0.1"
_POLL_S = 0.5
_TELL_AFTER_S = 10.0
_RESTART_S = 5.0
_RAYLET_S = 60.0
_SCRIPT_ENDS_S = 20.0
_TURN_S = 3.0


class Head:
    """The first node's part: the cluster as the driver sees it."""

    def __init__(self, cluster: Cluster, membership: Membership, tell: Callable[[str], None]):
        self._cluster = cluster
        self._membership = membership
        self._tell = tell
        self._host = Host(membership.meeting())
        self._node: RayNode | None = None

    def open(self) -> None:
        """Bring Ray up on all nodes that come, and connect this process to it.

        Raises `ClusterError` with the absent nodes after `cluster.form_s`, unless the recipe allows
        for fewer workers.
        """
        end = time.monotonic() + self._cluster.form_s
        self._wait_for(self._absent_guests, "come", end)
        self._node = RayNode(_options(self._membership, self._address()))
        address = self._node.cluster_address()
        self._host.tell(address)
        ray.init(address=address, _node_ip_address=self._address(), **QUIET)
        # Nodes that have come need some seconds more, also when the time was spent on others.
        self._wait_for(self._absent_raylets, "started Ray", max(end, time.monotonic() + _RAYLET_S))

    def is_lost(self) -> bool:
        """Whether Ray on this node has died, and the cluster with it."""
        return self._node is None or not self._node.is_alive()

    def gone(self) -> frozenset[str]:
        """Nodes, by SLURM's names, that have come and are here no more."""
        return self._host.gone()

    def leave_out(self, bad: Collection[str]) -> Exclusion | None:
        return exclusion(self._membership, bad)

    def close(self) -> None:
        """Disconnect, and end Ray on this node; the others go on waiting for another head."""
        ray.shutdown()
        if self._node is not None:
            self._node.stop()
            self._node = None

    def dismiss(self) -> None:
        """Send the other nodes home."""
        self._host.close()

    def _address(self) -> str:
        if self._cluster.interface is not None:
            return address_of_interface(self._cluster.interface)
        return next(iter(self._host.guests().values()), _LOOPBACK)

    def _absent_guests(self) -> set[str]:
        """Those that have not come yet; one that has gone again does not come back."""
        there = {*self._host.guests(), *self._host.gone()}
        return set(self._membership.nodes[1:]) - there

    def _absent_raylets(self) -> set[str]:
        """Raylets have no names of SLURM's; where one is missing, all that may be are told."""
        expected = 1 + len(self._host.guests())
        alive = sum(node["Alive"] for node in ray.nodes())
        return set(self._host.guests()) if alive < expected else set()

    def _wait_for(self, absent: Callable[[], set[str]], what: str, end: float) -> None:
        begin = time.monotonic()
        told = False
        while missing := absent():
            names = listed(sorted(missing))
            if time.monotonic() > end:
                text = f"Not all nodes have {what} within cluster.form_s = "
                text += f"{self._cluster.form_s:g} s; absent: {names}"
                if self._cluster.least_workers == self._cluster.most_workers:
                    raise ClusterError(
                        f"{text}. See what they printed in the job's log, exclude them with "
                        "slurm.exclude, or allow for fewer workers with cluster.workers: [min, max]"
                    )
                self._tell(text)
                return
            if not told and time.monotonic() - begin > _TELL_AFTER_S:
                told = True
                self._tell(f"Waiting for nodes: {names}")
            time.sleep(_POLL_S)


def lend(membership: Membership, cluster: Cluster, tell: Callable[[str], None]) -> bool:
    """Another node's part, until the first node ends it: whether it did, rather than being lost.

    Raises `ClusterError` when the first node cannot be reached.
    """
    guest = Guest(membership.meeting(), membership.node, cluster.form_s)
    address = (
        address_of_interface(cluster.interface)
        if cluster.interface is not None
        else guest.own_address()
    )
    node: RayNode | None = None
    head: str | None = None
    try:
        while True:
            heard = guest.hear(_POLL_S)
            died = node is not None and not node.is_alive()
            if node is not None and died:
                tell(f"{membership.node}: Ray has ended, starting it again: {node.last_words()}")
            if node is not None and (heard or died):
                node.stop()
                node = None
                # A node that was given up while its link was down: the head is told so first.
                time.sleep(_RESTART_S if died else 0.0)
            head = heard or head
            if node is None and head is not None:
                node = RayNode(_options(membership, address), head)
    except MeetingOver:
        return True
    except HostLost:
        tell(f"{membership.node}: {membership.nodes[0]}, which drives the run, is gone")
        return False
    finally:
        if node is not None:
            node.stop()
        guest.close()


def queue_again(membership: Membership, note: Callable[[Exclusion], None]) -> None:
    """What is left to another node when the first is gone, and with it the job's script, unless
    only the driver has died: then the script ends the job, and this process, in a moment.

    SLURM 22.05 by itself lets a job of `--no-kill` run on without its script, for ever. `note` is
    told what becomes of the first node. Raises `ClusterError` when SLURM does not take it.
    """
    # One after the other: when the first of them has done it, it is the end of all.
    time.sleep(_SCRIPT_ENDS_S + _TURN_S * (membership.index - 1))
    if not is_current(commands.describe(membership.id), membership):
        return
    found = exclusion(membership, [membership.nodes[0]])
    if found is not None:
        note(found)
    # Queuing again ends this process before it has left the node out.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    commands.queue_again(membership.id)
    if found is not None and found.every:
        commands.exclude(membership.id, found.every)


def _options(membership: Membership, address: str) -> NodeOptions:
    return NodeOptions(
        name=membership.node,
        address=address,
        num_cpus=membership.num_cpus,
        folder=Path(f"/tmp/shoal-{membership.job}-{membership.restarts}-{membership.index}"),
    )
