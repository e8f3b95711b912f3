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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

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


def test_a_node_that_will_be_taken_away_is_left_in_time(workplace: Path, cluster):
    """As a cloud gives notice: the run saves, and goes on without the node before it is gone."""
    run = workplace / "runs" / "drained"
    command = start(workplace, cluster, "drained", "train.steps=600")
    try:
        assert wait_until(lambda: steps_done(run) > 30, command, 300), command.tail()
        node = next(iter(cluster.worker_nodes)).node_id
        notice = [*_DRAIN, "--address", cluster.address, "--node-id", node]
        subprocess.run(notice, check=True, capture_output=True)
        assert command.wait(600) == 0, command.tail()
    finally:
        command.clean_up()
    # A CPU may come back so late that the run goes on with one worker first, and grows to two.
    sizes = [event["workers"] for event in events_of(run, "attempt")]
    assert sizes in ([3, 2], [3, 1, 2]), command.tail()
    reasons = [event["why"] for event in events_of(run, "stopping")]
    assert reasons == ["draining", "grow"][: len(sizes) - 1], command.tail()
    assert events_of(run, "fault") == []
    assert read_ledger(run / "ledger").redone == 0


def test_a_run_shrinks_with_its_nodes_and_grows_again(workplace: Path, cluster):
    run = workplace / "runs" / "elastic"
    command = start(workplace, cluster, "elastic")
    try:
        assert wait_until(lambda: steps_done(run) > 30, command, 300), command.tail()
        assert [event["workers"] for event in events_of(run, "attempt")] == [3]
        # With several nodes on one machine Ray connects the driver to any of them.
        own = events_of(run, "attempt")[0]["driver_node"]
        lost = next(node for node in cluster.worker_nodes if node.node_id != own)
        cluster.remove_node(lost, allow_graceful=False)
        wait_until(lambda: len(events_of(run, "attempt")) == 2, command, timeout_s=300)
        assert events_of(run, "attempt")[1]["workers"] == 2, command.tail()
        (fault,) = events_of(run, "fault")
        # On a busy machine Ray Train may first see that a rank does not answer.
        assert fault["kind"] in ("worker", "node", "cluster")
        cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
        wait_until(lambda: len(events_of(run, "attempt")) == 3, command, timeout_s=300)
        assert events_of(run, "attempt")[2]["workers"] == 3, command.tail()
        assert events_of(run, "stopping")[0]["why"] == "grow"
        assert command.wait(600) == 0, command.tail()
    finally:
        command.clean_up()
    alone = tell(workplace, "alone", [], random.Random(0))
    expected, found = trace_of(alone.run), trace_of(run)
    assert found.ledger == expected.ledger
    assert found.losses == pytest.approx(expected.losses, rel=1e-4, abs=1e-6)
    assert read_ledger(run / "ledger").attempts == 3
