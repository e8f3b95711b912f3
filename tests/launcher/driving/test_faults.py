"""What Ray Train raises, told apart: whose fault it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2.api.exceptions import ControllerError

from launcher.driving.faults import AttemptFailedError, Whereabouts, fault_of
from recipes.errors import BadLossError, DataError, StorageError

ECHO = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
DEAD = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())
WHERE = {
    0: Whereabouts(node="aa", host="first", pid=1),
    1: Whereabouts(node="bb", host="second", pid=2),
}


def failed(
    errors: dict[int, BaseException], lost_nodes: frozenset[str] = frozenset()
) -> AttemptFailedError:
    return fault_of(
        WorkerGroupError("it failed", errors),  # type: ignore[arg-type]
        ranks=WHERE,
        step=7,
        logs=Path("/runs/a/logs"),
        lost_nodes=lost_nodes,
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DEAD, "worker"),
        (NodeDiedError("the node is gone"), "node"),
        (OutOfMemoryError("Task was killed due to the node running low on memory."), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "worker"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x8 and 9x2)"), "code"),
        (KeyError("labels"), "code"),
        (StorageError("runs/a: cannot be written"), "storage"),
        (DataError("shard_00000.arrow: cannot be read"), "mistake"),
        (BadLossError("step 8: the loss is nan", (7,)), "bad_loss"),
    ],
)
def test_kinds(error: BaseException, kind: str):
    fault = failed({1: error}).fault
    assert fault.kind == kind
    assert fault.step == 7
    assert fault.node == "bb"


def test_the_dead_rank_counts_and_not_the_echo_of_it():
    found = failed({0: ECHO, 1: DEAD})
    assert found.fault.kind == "worker"
    assert found.fault.node == "bb"
    assert found.fault.what.startswith("rank 1 on second died")
    assert "/runs/a/logs/rank_001.log" in str(found.error)


def test_what_a_rank_says_counts_more_than_that_others_lost_it():
    found = failed({0: ECHO, 1: KeyError("labels")})
    assert found.fault.kind == "code"
    assert found.fault.node == "bb"
    own = DataError("shard_00000.arrow: cannot be read")
    assert failed({0: DEAD, 1: own}).error is own


@pytest.mark.parametrize("errors", [{0: ECHO}, {1: DEAD}, {0: ECHO, 1: DEAD}])
def test_a_lost_node_counts_and_not_the_echo_of_it(errors: dict[int, BaseException]):
    """Often it is the only thing that Ray Train has to tell."""
    fault = failed(errors, lost_nodes=frozenset({"bb", "a node without ranks"})).fault
    assert (fault.kind, fault.node) == ("node", "bb")
    assert fault.what == "second, the node of rank 1, is gone or cut off"
    assert fault.said


def test_what_was_said_is_kept_beside_what_it_means():
    error = ActorUnavailableError("keepalive watchdog timeout\n\nand more", b"7" * 16)
    fault = failed({1: error}, lost_nodes=frozenset({"bb"})).fault
    assert fault.kind == "node"
    assert fault.said.startswith("ActorUnavailableError: ")
    assert "keepalive watchdog timeout and more" in fault.said


def test_what_a_rank_says_counts_more_than_that_its_node_is_lost():
    own = StorageError("runs/a: cannot be written")
    assert failed({0: own}, lost_nodes=frozenset({"bb"})).error is own
    assert failed({0: KeyError("labels")}, lost_nodes=frozenset({"bb"})).fault.kind == "code"


def test_a_bad_loss_tells_its_batches():
    assert failed({0: BadLossError("nan", (7, 8))}).fault.batches == (7, 8)


def test_workers_that_could_not_start_are_the_cluster():
    error = ControllerError(WorkerGroupStartupTimeoutError(2))
    found = fault_of(error, ranks={}, step=0, logs=Path("/runs/a/logs"))
    assert found.fault.kind == "cluster"
    assert found.fault.node is None
