"""A run on nodes that come and go: those of Ray, each with a raylet of its own, on one machine."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.stories import tell, trace_of
from chaos.workplace import Command, make_workplace, steps_done, wait_until

from trainer.ledger import read_ledger

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(3000)]

_STORE_BYTES = 100 * 2**20
_DRAIN = [
    str(Path(sys.executable).parent / "ray"),
    "drain-node",
    *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
    *("--deadline-remaining-seconds", "3"),
]
# A node that is gone is noticed in seconds, not in half a minute; not so soon that a busy machine
# looks like one that is gone.
_SOON = {"health_check_period_ms": 500, "health_check_failure_threshold": 12}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("elastic"), steps=800, rate=1e-4)


@pytest.fixture
def cluster() -> Iterator[object]:
    """A head and two nodes, with a CPU each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": _STORE_BYTES, "_system_config": _SOON}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
        yield cluster
    finally:
        cluster.shutdown()


def start(workplace: Path, cluster, name: str, *more: str) -> Command:
    """A run on one to three workers of the cluster."""
    arguments = (
        "run",
        "tiny.yaml",
        f"name={name}",
        "cluster.kind=ray",
        f"cluster.address={cluster.address}",
        "cluster.workers=[1,3]",
        "failure.start_s=300",
        *more,
    )
    command = Command(workplace, arguments, workplace / f"{name}.log")
    command.start()
    return command


def events_of(run: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def sizes_of(run: Path) -> list[int]:
    """The number of workers of each attempt."""
    return [event["workers"] for event in events_of(run, "attempt")]


def give_notice(cluster, node) -> None:
    """As a cloud does: the node will be taken away."""
    notice = [*_DRAIN, "--address", cluster.address, "--node-id", node.node_id]
    subprocess.run(notice, check=True, capture_output=True)


def node_of_no_driver(cluster, run: Path, but: object = None):
    """With several nodes on one machine Ray connects the driver to any of them."""
    own = events_of(run, "attempt")[0]["driver_node"]
    return next(node for node in cluster.worker_nodes if node.node_id != own and node is not but)


def test_a_run_shrinks_with_its_nodes_and_grows_again(workplace: Path, cluster):
    """It leaves a node that it is told of before that is gone, uses a new one, and loses one."""
    run = workplace / "runs" / "elastic"
    command = start(workplace, cluster, "elastic")
    try:
        assert wait_until(lambda: steps_done(run) > 30, command, 300), command.tail()
        assert sizes_of(run) == [3]
        drained = node_of_no_driver(cluster, run)
        give_notice(cluster, drained)
        # A CPU may come back so late that the run goes on with one worker first.
        wait_until(lambda: sizes_of(run)[1:2] in ([2], [1]), command, timeout_s=300)
        cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
        wait_until(lambda: sizes_of(run)[-1] == 3 and len(sizes_of(run)) > 1, command, 300)
        assert sizes_of(run) in ([3, 2, 3], [3, 1, 3], [3, 1, 2, 3]), command.tail()
        reasons = [event["why"] for event in events_of(run, "stopping")]
        assert reasons == ["draining", "grow", "grow"][: len(reasons)], command.tail()
        assert events_of(run, "fault") == []
        account = read_ledger(run / "ledger")  # its workers only start: nothing is written now
        assert account.redone == 0
        done = steps_done(run)
        assert wait_until(lambda: steps_done(run) > done + 5, command, 300), command.tail()
        lost = node_of_no_driver(cluster, run, but=drained)
        cluster.remove_node(lost, allow_graceful=False)
        assert command.wait(600) == 0, command.tail()
        assert sizes_of(run)[-2:] == [3, 2], command.tail()
        (fault,) = events_of(run, "fault")
        # On a busy machine Ray Train may first see that a rank does not answer.
        assert fault["kind"] in ("worker", "node", "cluster")
    finally:
        command.clean_up()
    alone = tell(workplace, "alone", [], random.Random(0))
    expected, found = trace_of(alone.run), trace_of(run)
    assert found.ledger == expected.ledger
    assert found.losses == pytest.approx(expected.losses, rel=1e-4, abs=1e-6)
    assert read_ledger(run / "ledger").attempts == len(sizes_of(run))
