"""A Ray of our own: what it is started with, and that nothing of it stays."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from cluster.ray_cluster import connected, uses_gpu
from recipes.cluster import Cluster
from recipes.errors import ClusterError

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import os, signal
import psutil, ray
from cluster.ray_cluster import connected
from recipes.cluster import Cluster

@ray.remote(num_cpus=0)
class Hung:
    def pid(self):
        return os.getpid()

with connected(Cluster(), num_cpus=1):
    actor = Hung.remote()
    pid = ray.get(actor.pid.remote())
    os.kill(pid, signal.SIGSTOP)  # as a worker that hangs in its exit handler: deaf
    print(pid, *(child.pid for child in psutil.Process().children(recursive=True)))
"""


def test_a_worker_that_hangs_at_its_end_is_killed():
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    pids = [int(word) for word in found.stdout.split()]
    assert len(set(pids)) > 4  # raylet, gcs and agents beside the actor
    assert [pid for pid in pids if _runs(pid)] == []


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("cluster", "resources", "expected"),
    [
        (Cluster(workers=[2]), {"CPU": 2.0}, False),
        (Cluster(workers=[2]), {"CPU": 2.0, "GPU": 2.0}, True),
        (Cluster(workers=[2], device="cpu"), {"CPU": 2.0, "GPU": 1.0}, False),
    ],
)
def test_devices(cluster: Cluster, resources: dict[str, float], expected: bool):
    assert uses_gpu(cluster, resources) is expected


@pytest.mark.parametrize(
    ("cluster", "resources", "said"),
    [
        (Cluster(workers=[2]), {"CPU": 8.0, "GPU": 1.0}, "the cluster has 1 GPUs"),
        (Cluster(workers=[1], device="gpu"), {"CPU": 8.0}, "the cluster has 0 GPUs"),
        (Cluster(workers=[3], cpus_per_worker=2), {"CPU": 4.0}, "At most 2 such workers fit"),
    ],
)
def test_what_a_cluster_lacks(cluster: Cluster, resources: dict[str, float], said: str):
    with pytest.raises(ClusterError, match=said):
        uses_gpu(cluster, resources)


def test_what_is_no_job_says_so():
    with (
        pytest.raises(ClusterError, match=r"with cluster\.kind=local"),
        connected(Cluster(kind="slurm")),
    ):
        pass
