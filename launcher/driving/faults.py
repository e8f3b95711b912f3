"""What a failed attempt's error means: from the exceptions of Ray and the ranks to a fault."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError

from launcher.driving.policy import Fault, Kind
from recipes.errors import BadLossError, ShoalError, StorageError, TrainingError

_SIGNS_OF_A_LOST_PEER = ("gloo", "nccl", "connection", "socket", "broken pipe", "tcpstore")
# What the loss of a node looks like to those who are left.
_OF_A_LOST_NODE: tuple[Kind, ...] = ("worker", "node", "cluster")
_SAID_CHARACTERS = 500
_SIGNS_OF_THE_MACHINE = ("cuda error", "cublas", "cudnn", "ecc", "uncorrectable", "nvlink")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where a rank runs."""

    node: str  # by Ray's id
    host: str
    pid: int


class AttemptFailedError(Exception):
    """An attempt ended with a fault; `error` is what a person is shown if the run ends with it."""

    def __init__(self, fault: Fault, error: BaseException) -> None:
        super().__init__(fault.what)
        self.fault = fault
        self.error = error


def fault_of(
    error: BaseException,
    *,
    ranks: Mapping[int, Whereabouts],
    step: int,
    logs: Path,
    lost_nodes: Collection[str] = (),
) -> AttemptFailedError:
    """The fault behind what Ray Train raised. `ranks` is where those ran that were heard,
    `lost_nodes` are dead or cannot be reached: their ranks cannot say anything themselves, and
    Ray Train may have no more than the echo that others have heard."""
    causes = _causes(error)
    rank, cause = _first_cause(causes)
    kind = _kind(cause)
    lost = [number for number, place in ranks.items() if place.node in lost_nodes]
    if lost and kind in _OF_A_LOST_NODE:
        rank, kind = min(lost), "node"
    place = ranks.get(rank) if rank is not None else None
    where = f"rank {rank}" if rank is not None else "the workers"
    if place is not None:
        where += f" on {place.host}"
    said = f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:_SAID_CHARACTERS]
    fault = Fault(
        kind=kind,
        what=_lost_node(lost, ranks) if kind == "node" and lost else _what(kind, cause, where),
        said=said,
        step=step,
        node=place.node if place is not None else None,
        batches=cause.batches if isinstance(cause, BadLossError) else (),
    )
    if isinstance(cause, ShoalError):
        return AttemptFailedError(fault, cause)
    log = logs / f"rank_{rank or 0:03d}.log"
    text = f"{fault.what}. The whole story is in {log}"
    return AttemptFailedError(fault, TrainingError(text))


def _causes(error: BaseException) -> dict[int | None, BaseException]:
    """The innermost error of each rank that has one; of no rank, that of the whole."""
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    if isinstance(error, WorkerGroupError):
        return {rank: _innermost(inner) for rank, inner in sorted(error.worker_failures.items())}
    if isinstance(error, ControllerError):
        return {None: _innermost(error.controller_failure)}
    return {None: error}


def _innermost(error: BaseException) -> BaseException:
    """The reason inside what Ray has wrapped."""
    for name in ("health_check_failure", "cause", "__cause__"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return _innermost(inner)
    return error


def _first_cause(causes: Mapping[int | None, BaseException]) -> tuple[int | None, BaseException]:
    """What began it: shoal's own word first, then a dead rank, then any error that is not the echo
    of a peer that is gone."""

    def order(item: tuple[int | None, BaseException]) -> int:
        _, error = item
        if isinstance(error, ShoalError):
            return 0
        if isinstance(error, RayActorError):
            return 1
        return 3 if _is_echo(error) else 2

    return min(causes.items(), key=order)


def _is_echo(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(
        sign in text for sign in _SIGNS_OF_A_LOST_PEER
    )


def _kind(error: BaseException) -> Kind:
    if isinstance(error, BadLossError):
        return "bad_loss"
    if isinstance(error, StorageError):
        return "storage"
    if isinstance(error, ShoalError):
        return "mistake"
    if isinstance(error, NodeDiedError):
        return "node"
    if isinstance(error, RayActorError):
        return "memory" if "low on memory" in str(error) else "worker"
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError | OutOfMemoryError) or "out of memory" in text:
        return "memory"
    if isinstance(error, RayError) or type(error).__module__.startswith("ray."):
        return "cluster"
    if _is_echo(error) or any(sign in text for sign in _SIGNS_OF_THE_MACHINE):
        return "worker"
    return "code"


def _what(kind: Kind, error: BaseException, where: str) -> str:
    if isinstance(error, ShoalError):
        return str(error).rstrip(".")
    if kind == "node":
        return f"the node of {where} is gone"
    if isinstance(error, RayActorError):
        return f"{where} died ({_exit_detail(str(error))})"
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    told = lines[-1].strip().rstrip(".") if lines else "no message"
    return f"{where} failed: {type(error).__name__}: {told}"


def _lost_node(lost: Sequence[int], ranks: Mapping[int, Whereabouts]) -> str:
    first = ranks[min(lost)]
    there = sorted(rank for rank in lost if ranks[rank].node == first.node)
    of = f"rank {there[0]}" if len(there) == 1 else f"ranks {', '.join(map(str, there))}"
    return f"{first.host}, the node of {of}, is gone or cut off"


def _exit_detail(text: str) -> str:
    """The telling part of Ray's long message about a dead process."""
    _, found, detail = text.partition("Worker exit detail: ")
    detail = detail.partition(". Some common causes")[0].strip().rstrip(".")
    if not found or "connection error" in detail:
        return "its process was killed or crashed"
    return detail
