"""A Ray of our own: what it is started with, and that nothing of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import ray

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
        timeout=600,
    )
    assert found.returncode == 0, found.stderr
    pids = [int(word) for word in found.stdout.split()]
    assert len(set(pids)) > 4  # raylet, gcs and agents beside the actor
    assert [pid for pid in pids if _runs(pid)] == []


STRANGERS = """
import os, subprocess, sys
from pathlib import Path
import psutil, ray
from cluster.ray_cluster import connected
from recipes.cluster import Cluster

COME_IN = "import ray, sys; ray.init(address=sys.argv[1], logging_level=50); print('was let in')"

with connected(Cluster(), num_cpus=1):
    token = os.environ["RAY_AUTH_TOKEN"]
    command = [sys.executable, "-c", COME_IN, ray.get_runtime_context().gcs_address]
    nobody = {name: text for name, text in os.environ.items() if not name.startswith("RAY_AUTH")}
    other = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}
    asking = [
        subprocess.Popen(
            command, env=nobody | shown, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for shown in ({}, other, {**other, "RAY_AUTH_TOKEN": token})
    ]
    for process in asking:  # all at once: who is refused asks again for a while
        said, _ = process.communicate()
        print("was let in" in said, "InvalidAuthToken" in said)
    started = psutil.Process().children(recursive=True)
    print(len(started), any(token in word for child in started for word in child.cmdline()))
    kept = Path.home() / ".ray" / "auth_token"
    print(kept.exists() and token in kept.read_text())
"""


def test_others_are_not_let_in(tmp_path: Path):
    """Not without a token, nor with another; the right one is not to be seen anywhere."""
    found = subprocess.run(
        [sys.executable, "-c", STRANGERS],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert found.returncode == 0, found.stderr
    nobody, other, own, started, kept = found.stdout.splitlines()
    assert [nobody, other, own] == ["False True", "False True", "True False"]
    assert int(started.split()[0]) > 3 and started.split()[1] == "False"
    assert kept == "False"


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


def test_what_is_no_job_says_so(monkeypatch: pytest.MonkeyPatch):
    # Other tests of this process may have connected it.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(ClusterError, match=r"with cluster\.kind=local"),
        connected(Cluster(kind="slurm")),
    ):
        pass
