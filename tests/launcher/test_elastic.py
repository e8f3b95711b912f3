"""A run on nodes that come and go: those of Ray, each with a raylet of its own, on one machine."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.stories import tell, trace_of
from chaos.workplace import Command, make_workplace, steps_done, wait_until

from trainer.ledger import read_ledger

pytestmark = pytest.mark.slow

_STORE_BYTES = 100 * 2**20
# A node that is gone is noticed in seconds, not in half a minute.
_SOON = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("elastic"), steps=1200, rate=1e-4)


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


def events_of(run: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def test_a_run_shrinks_with_its_nodes_and_grows_again(workplace: Path, cluster):
    run = workplace / "runs" / "elastic"
    arguments = (
        "run",
        "tiny.yaml",
        "name=elastic",
        f"cluster.address={cluster.address}",
        "cluster.workers=[1,3]",
    )
    command = Command(workplace, arguments, workplace / "elastic.log")
    command.start()
    try:
        assert wait_until(lambda: steps_done(run) > 30, command), command.tail()
        assert [event["workers"] for event in events_of(run, "attempt")] == [3]
        lost = cluster.worker_nodes.copy().pop()
        cluster.remove_node(lost, allow_graceful=False)
        wait_until(lambda: len(events_of(run, "attempt")) == 2, command)
        assert events_of(run, "attempt")[1]["workers"] == 2, command.tail()
        (fault,) = events_of(run, "fault")
        assert fault["kind"] in ("worker", "node")
        cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
        wait_until(lambda: len(events_of(run, "attempt")) == 3, command)
        assert events_of(run, "attempt")[2]["workers"] == 3, command.tail()
        assert events_of(run, "stopping")[0]["why"] == "grow"
        assert command.wait(300) == 0, command.tail()
    finally:
        command.clean_up()
    alone = tell(workplace, "alone", [], random.Random(0))
    expected, found = trace_of(alone.run), trace_of(run)
    assert found.ledger == expected.ledger
    assert found.losses == pytest.approx(expected.losses, rel=1e-4, abs=1e-6)
    assert read_ledger(run / "ledger").attempts == 3
