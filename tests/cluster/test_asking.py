"""Asking nodes: one that does not answer is told, and holds up no other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from cluster.asking import Silent, answers, ask, nodes
from cluster.ray_cluster import connected
from cluster.shared_folders import look
from recipes.cluster import Cluster


@pytest.fixture(scope="module", autouse=True)
def own_ray() -> Iterator[None]:
    with connected(Cluster(), num_cpus=2):
        yield


@ray.remote(num_cpus=0, max_retries=0)
def double(node: str, number: int) -> int:
    return 2 * number


@ray.remote(num_cpus=0, max_retries=0)
def fail(node: str) -> None:
    raise ValueError("the disk is on fire")


@ray.remote(num_cpus=0, max_restarts=0)
class Told:
    def pid(self) -> int:
        return os.getpid()


def test_every_node_is_asked():
    (node,) = nodes()
    assert ask([node], double, 21, timeout_s=60) == {node: 42}
    assert ask([], double, 21, timeout_s=60) == {}


def test_what_was_raised_on_a_node_is_told_in_a_line():
    (node,) = nodes()
    assert ask([node], fail, timeout_s=60) == {node: Silent("ValueError: the disk is on fire")}


def test_a_node_that_is_not_there_is_told():
    (node,) = nodes()
    answered = ask([node, "0" * 56], double, 1, timeout_s=60)
    assert answered[node] == 2
    assert isinstance(answered["0" * 56], Silent)


def test_a_stopped_process_holds_up_no_other():
    stopped, alive = Told.remote(), Told.remote()  # type: ignore[attr-defined]
    process = psutil.Process(ray.get(stopped.pid.remote()))
    process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        found = answers({"stopped": stopped.pid.remote(), "alive": alive.pid.remote()}, 2)
    finally:
        process.send_signal(signal.SIGCONT)
    assert found["stopped"] == Silent("no answer for 2 s")
    assert found["alive"] != process.pid
    assert time.monotonic() - begin < 60  # not for ever


def test_an_actor_that_dies_is_told():
    actor = Told.remote()  # type: ignore[attr-defined]
    process = psutil.Process(ray.get(actor.pid.remote()))
    ray.kill(actor)
    process.wait(60)
    (found,) = answers({"": actor.pid.remote()}, 60).values()
    assert isinstance(found, Silent)
    assert found.why


def test_a_folder_is_looked_at_and_left_as_it_was(tmp_path: Path):
    (node,) = nodes()
    seen = look({"storage.path": tmp_path, "storage.cache": tmp_path / "absent"}, [node])
    assert seen[node]["storage.path"].error == ""
    assert seen[node]["storage.path"].unseen == ()
    assert seen[node]["storage.cache"].error == "No such file or directory"
    assert list(tmp_path.iterdir()) == []
