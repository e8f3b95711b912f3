"""What to do about a fault: a function of what happened, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recipes.failure import Failure

Kind = Literal[
    "mistake",  # shoal's own error: the recipe, the data or a checkpoint cannot be used
    "bad_loss",
    "storage",  # something could not be written or read
    "memory",  # out of memory while computing
    "code",  # any other error that a rank raised by itself
    "worker",  # a rank's process died
    "node",  # a rank's node died
    "hang",
    "cluster",  # workers could not be started, or the cluster could not be asked
]

_LONGEST_WAIT_S = 300.0
_MACHINE: tuple[Kind, ...] = ("worker", "node", "hang")
# The same work fails the same way: once more tells whether it was the machine.
_REPEATABLE: tuple[Kind, ...] = ("memory", "code")
_STRIKES = 2
# sbatch(1), --signal: "may be sent up to 60 seconds earlier than specified".
_SIGNAL_EARLY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why an attempt ended."""

    kind: Kind
    what: str
    """One line for a person, without a full stop."""
    said: str = ""
    """What Ray or the rank said itself, in one line."""
    step: int
    """Steps that were done when it happened, counted from the run's beginning."""
    saved: int = 0
    """Step of the newest checkpoint there is."""
    node: str | None = None
    """The node it happened on, by Ray's id."""
    node_name: str | None = None
    """The same node by its scheduler's name, if it is known."""
    batches: tuple[int, ...] = ()
    """Batches to leave out, for a bad loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    action: Literal["restart", "stop"]
    why: str
    wait_s: float = 0.0
    avoid: frozenset[str] = frozenset()
    """Nodes not to run on again."""
    skip: tuple[int, ...] = ()
    """Batches to leave out from now on."""


def decide(faults: Sequence[Fault], limits: Failure, num_nodes: int = 1) -> Decision:
    """What to do after the last of a run's faults, in the order they happened.

    `num_nodes` are alive in the cluster; a node is avoided only where there are others.
    """
    last = faults[-1]
    if last.kind == "mistake":
        return Decision(action="stop", why="starting again would not change it")
    if last.kind == "bad_loss":
        return _about_bad_loss(faults, limits)
    if last.kind in _REPEATABLE and _happened_before(faults):
        return Decision(
            action="stop",
            why=f"it happened twice after step {last.step}, so it is not the machine",
        )
    in_a_row = _without_progress(faults)
    if in_a_row > limits.max_restarts:
        return Decision(
            action="stop",
            why=f"failure.max_restarts = {limits.max_restarts}, and no checkpoint was reached "
            f"since step {last.saved}",
        )
    avoid = _bad_nodes(faults) if num_nodes > 1 else frozenset()
    return Decision(
        action="restart",
        why=f"restart {in_a_row} of {limits.max_restarts} without a new checkpoint"
        + (", on other nodes" if last.node in avoid else ""),
        wait_s=min(limits.backoff_s * 2 ** (in_a_row - 1), _LONGEST_WAIT_S),
        avoid=avoid,
    )


def _about_bad_loss(faults: Sequence[Fault], limits: Failure) -> Decision:
    last = faults[-1]
    if limits.bad_loss == "stop":
        return Decision(action="stop", why="failure.bad_loss = stop")
    bad = sum(fault.kind == "bad_loss" for fault in faults[-_without_progress(faults) :])
    if bad > limits.max_restarts:
        return Decision(
            action="stop",
            why=f"{bad} bad losses without a new checkpoint, failure.max_restarts = "
            f"{limits.max_restarts}",
        )
    count = len(last.batches)
    left_out = f"batch {last.batches[0]}" if count == 1 else f"{count} batches"
    return Decision(action="restart", why=f"leaving out {left_out}", skip=last.batches)


def _happened_before(faults: Sequence[Fault]) -> bool:
    last = faults[-1]
    return any(fault.kind == last.kind and fault.step == last.step for fault in faults[:-1])


def _without_progress(faults: Sequence[Fault]) -> int:
    """Faults in a row, the last included, since a checkpoint was reached."""
    count = 0
    for fault in reversed(faults):
        if fault.saved != faults[-1].saved:
            break
        count += 1
    return count


def _bad_nodes(faults: Sequence[Fault]) -> frozenset[str]:
    strikes = Counter(fault.node for fault in faults if fault.node and fault.kind in _MACHINE)
    return frozenset(node for node, count in strikes.items() if node and count >= _STRIKES)


def blamed(faults: Sequence[Fault]) -> frozenset[str]:
    """Nodes, by name, that a job had better not get again: those that were lost or hung, that are
    avoided already, or on which a process has died since the last checkpoint."""
    recent = faults[len(faults) - _without_progress(faults) :]
    avoided = _bad_nodes(faults)
    return frozenset(
        fault.node_name
        for fault in faults
        if fault.node_name
        and fault.kind in _MACHINE
        and (fault.kind in ("node", "hang") or fault.node in avoided or fault in recent)
    )


def choose_workers(least: int, most: int, fits: int, micro_batches: int) -> int | None:
    """How many workers to start when `fits` have room; None when too few have.

    More than there are micro-batches in a step would have nothing to do, so an elastic run does not
    grow beyond them.
    """
    useful = most if least == most else max(least, min(most, micro_batches))
    chosen = min(useful, fits)
    return chosen if chosen >= least else None


def is_early(now: float, end: float | None, signal_s: float) -> bool:
    """Whether a scheduler's signal tells of a job's time limit (s since 1970), but before the
    `signal_s` of the recipe: the time between is used. One that comes earlier still is for a more
    urgent job, and nobody says how long that will wait."""
    return end is not None and signal_s < end - now <= signal_s + _SIGNAL_EARLY_S


def must_stop(now: float, deadline: float | None, step_s: float, save_s: float) -> bool:
    """Whether to stop and save before a deadline (s since 1970), or at once when it is unknown.

    A step and a checkpoint may take twice what they took so far, and ten seconds are for the rest.
    """
    return deadline is None or now + 2 * (step_s + save_s) + 10.0 >= deadline
