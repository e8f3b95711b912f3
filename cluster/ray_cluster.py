"""A Ray cluster to run on: started on this machine or in a job of SLURM, or there already."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import psutil
import ray
from ray._private.ray_logging import stdout_deduplicator

from cluster.inside import is_inside
from cluster.ray_node import OBJECT_STORE_BYTES, QUIET, end_all
from cluster.slurm.allocation import Head
from cluster.slurm.exclusion import Exclusion
from cluster.slurm.membership import Membership
from recipes.cluster import AUTO_ADDRESS, Cluster
from recipes.errors import ClusterError

# A Ray lives as long as these two of its processes.
_VITAL = ("raylet", "gcs_server")
_KNOCK_S = 10.0

_ENVIRONMENT = {
    # Workers stay in the driver's folder; every path of a job is absolute anyhow.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Ray's own default of 15 lets anything else on the machine go before training.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # launcher/driving watches for nodes that are taken away; Ray Train would restart by itself.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}

# For a Ray of our own on one machine, whose every process takes from the training: nobody looks at
# its metrics, and to ask two workers how they are costs nothing.
_LOCAL_ENVIRONMENT = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


class Connection(Protocol):
    """This process's connection to Ray."""

    def open(self) -> None:
        """Connect, also once more after `close`. Raises `ClusterError` when that cannot be done."""

    def close(self) -> None:
        """Disconnect; a Ray that was started here is gone afterwards."""

    def is_lost(self) -> bool:
        """Whether a Ray that was started here has died, and with it all that ran on it."""

    def gone(self) -> Collection[str]:
        """Nodes of a job, by their names, that have come and are here no more."""

    def leave_out(self, bad: Collection[str]) -> Exclusion | None:
        """Whether nodes, by their names, can be left out when this job is queued again; None when
        there is nothing to leave out. Raises `ClusterError` when the scheduler cannot be asked."""


@contextmanager
def connected(
    cluster: Cluster, num_cpus: int | None = None, tell: Callable[[str], None] = print
) -> Iterator[Connection]:
    """Connected to the recipe's cluster; a Ray that was started here is ended with it.

    `num_cpus` is what a Ray that is started on this machine offers; all cores when left out. `tell`
    is told what is waited for.

    Raises `ClusterError` when the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield ExistingRay(cluster)
        return
    settings = _ENVIRONMENT | (_LOCAL_ENVIRONMENT if cluster.kind == "local" else {})
    os.environ.update({name: os.environ.get(name, value) for name, value in settings.items()})
    # Ray would print a paragraph for every worker that dies, which shoal tells in one line.
    # RAY_DEDUP_LOGS_SKIP_REGEX does the same, but is read when ray is imported.
    stdout_deduplicator.skip_re = re.compile("")
    if cluster.kind not in ("local", "ray") and not is_inside():
        raise ClusterError(
            f"cluster.kind = {cluster.kind}: this command is no job, it works where it is given. "
            "Give it on a machine that can do the work, with cluster.kind=local"
        )
    if cluster.kind == "slurm":
        with in_allocation(cluster, tell) as connection:
            yield connection
        return
    connection = LocalRay(num_cpus) if cluster.kind == "local" else ExistingRay(cluster)
    connection.open()
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def in_allocation(cluster: Cluster, tell: Callable[[str], None]) -> Iterator[Connection]:
    """Connected to the Ray of this SLURM job, which is brought up and taken down."""
    connection = Head(cluster, Membership.from_environment(), tell)
    try:
        connection.open()
        yield connection
    finally:
        connection.close()
        connection.dismiss()


class LocalRay:
    """A Ray of our own on this machine."""

    def __init__(self, num_cpus: int | None) -> None:
        self._num_cpus = num_cpus
        self._roots: list[psutil.Process] = []
        self._vital: list[psutil.Process] = []

    def open(self) -> None:
        # Ray 2.60 asks for a token by default, and keeps one that anybody on the machine can read
        # in ~/.ray. This one is known to this process and those it starts, and written nowhere.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        here = psutil.Process()
        before = here.children()
        with _reaching("this machine"):
            ray.init(
                # "local" starts a new Ray whatever RAY_ADDRESS says.
                address="local",
                num_cpus=self._num_cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **QUIET,
            )
        self._roots = [child for child in here.children() if child not in before]
        self._vital = [root for root in self._roots if root.name() in _VITAL]

    def close(self) -> None:
        started = self._roots + [child for root in self._roots for child in _children(root)]
        ray.shutdown()
        end_all(started)

    def is_lost(self) -> bool:
        return not all(_lives(process) for process in self._vital)

    def gone(self) -> Collection[str]:
        return ()

    def leave_out(self, bad: Collection[str]) -> Exclusion | None:
        return None


class ExistingRay:
    """A cluster that was there before."""

    def __init__(self, cluster: Cluster) -> None:
        # A job's address is that of the Jobs API; inside it Ray knows its own.
        own = cluster.address if cluster.kind == "ray" else None
        self._address = own or AUTO_ADDRESS

    def open(self) -> None:
        with _reaching(self._address):
            _knock(self._address)
            ray.init(address=self._address, **QUIET)

    def close(self) -> None:
        ray.shutdown()

    def is_lost(self) -> bool:
        return False

    def gone(self) -> Collection[str]:
        return ()

    def leave_out(self, bad: Collection[str]) -> Exclusion | None:
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _knock(address: str) -> None:
    """Raises `OSError` when nobody listens at an address: Ray 2.60 goes on trying for more than
    four minutes, and says so in C++."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


@contextmanager
def _reaching(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"cluster.address: Ray on {where} cannot be reached: {str(error).splitlines()[0]}"
        ) from error


def uses_gpu(cluster: Cluster, resources: Mapping[str, float]) -> bool:
    """Whether workers get a GPU each, given the cluster's total resources.

    Raises `ClusterError` when the cluster has less than the recipe asks for; Ray would wait.
    """
    gpus = int(resources.get("GPU", 0))
    cpus = int(resources.get("CPU", 0))
    gpu = cluster.device == "gpu" or (cluster.device == "auto" and gpus > 0)
    workers = cluster.least_workers
    if gpu and gpus < workers:
        raise ClusterError(
            f"cluster.workers = {workers}: the cluster has {gpus} GPUs, and each worker "
            "takes one. Lower cluster.workers, or set cluster.device=cpu"
        )
    needed = workers * cluster.cpus_per_worker
    if needed > cpus:
        raise ClusterError(
            f"cluster.workers = {workers} with cluster.cpus_per_worker = "
            f"{cluster.cpus_per_worker} need {needed} CPU cores; the cluster has {cpus}. "
            f"At most {cpus // cluster.cpus_per_worker} such workers fit"
        )
    return gpu


def resources() -> dict[str, float]:
    """Total resources of the connected cluster by Ray's names: CPU, GPU, memory in bytes, …"""
    return dict(ray.cluster_resources())
