"""Bad nodes that a job is not to get when it is queued again, as long as enough others are left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cluster.slurm import commands
from cluster.slurm.commands import SlurmNode
from cluster.slurm.membership import Membership

# Nodes of one kind report a little more or less memory.
_AS_MUCH_MEMORY = 0.95
_NOT_UP = (
    "down",
    "drain",
    "draining",
    "drained",
    "fail",
    "failing",
    "unknown",
    "future",
    "blocked",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """What is to be left out, and why if not."""

    bad: tuple[str, ...]
    """Nodes that are to be left out now."""
    every: str
    """All that are left out from now on, as SLURM writes it; empty when `bad` cannot be."""
    why: str
    """One line for a person."""


def exclusion(membership: Membership, bad: Collection[str]) -> Exclusion | None:
    """Whether nodes of a job can be left out when it is queued again; None when there is nothing to
    do, as when SLURM has done it already, or itself gives nobody those that it found dead. Raises
    `ClusterError` when SLURM cannot be asked."""
    job = commands.describe(membership.id)
    if not is_current(job, membership):
        return None
    before = job.get("ExcNodeList", "")
    excluded = commands.names_of(before)
    nodes = commands.nodes_of(job["Partition"])
    new = given_again(set(bad) & set(membership.nodes) - set(excluded), nodes)
    if not new:
        return None
    return choose(
        new,
        before=before,
        excluded=excluded,
        own=membership.nodes,
        partition=job["Partition"],
        nodes=nodes,
        reservation=job.get("Reservation"),
    )


def is_current(job: dict[str, str], membership: Membership) -> bool:
    """Whether a job still runs, and is not already another start of it, on other nodes."""
    return job["JobState"] == "RUNNING" and int(job["Restarts"]) == membership.restarts


def given_again(bad: Collection[str], nodes: Sequence[SlurmNode]) -> list[str]:
    """Those of the bad ones that SLURM takes for good, sorted."""
    return sorted(node.name for node in nodes if node.name in bad and _is_up(node))


def choose(
    bad: Sequence[str],
    *,
    before: str,
    excluded: Collection[str],
    own: Sequence[str],
    partition: str,
    nodes: Sequence[SlurmNode],
    reservation: str | None = None,
) -> Exclusion:
    """Leave the bad ones out, unless fewer nodes would be left that can do what the job's own do
    than the job needs: it would wait for ever."""
    names = ", ".join(bad)
    if reservation is not None:
        why = f"Not left out: {names}. The job can only run on the nodes of {reservation}"
        return Exclusion(bad=tuple(bad), every="", why=why)
    models = [node for node in nodes if node.name in own]
    left = [
        node.name
        for node in nodes
        if node.name not in {*bad, *excluded}
        and _is_up(node)
        and any(_is_as_good(node, model) for model in models)
    ]
    if len(left) < len(own):
        why = (
            f"Not left out: {names}. The job needs {len(own)} nodes, and of the others in "
            f"{partition} {len(left)} can do the work"
        )
        return Exclusion(bad=tuple(bad), every="", why=why)
    every = ",".join([*([before] if before else []), *bad])
    return Exclusion(bad=tuple(bad), every=every, why=f"Queuing again without {names}")


def _is_up(node: SlurmNode) -> bool:
    return not node.state.endswith("*") and node.state.rstrip("~#!%$@^-+") not in _NOT_UP


def _is_as_good(node: SlurmNode, model: SlurmNode) -> bool:
    return (
        node.cpus >= model.cpus
        and node.memory_mb >= _AS_MUCH_MEMORY * model.memory_mb
        and node.features >= model.features
        and node.resources == model.resources
    )
