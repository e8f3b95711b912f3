"""The processes of Ray on one node of a job: started, watched, and gone without a trace."""

from __future__ import annotations

import logging
import shutil
import socket
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.process import last_lines, spawn
from recipes.errors import ClusterError

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
"""For `ray.init`: shoal tells itself what matters of what Ray and its workers print."""

# Ray leaves a third of the machine's memory to its object store; shoal passes names of files.
OBJECT_STORE_BYTES = 256 * 2**20
_START_S = 120.0
_END_S = 5.0

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own default of 15 lets anything else on the machine go before training.
    "RAY_worker_niceness": "0",
    # Without these a node that is lost is noticed after a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    # A raylet that is told to end would wait half a minute for its work.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """How Ray is started on a node."""

    name: str
    """Of the node, as its scheduler calls it; Ray keeps it as NodeName."""
    address: str
    """Of the node, by which the others reach it."""
    num_cpus: int
    folder: Path
    """For Ray's sockets and logs; of this start of the job alone. Short: sockets have 107 bytes."""


class RayNode:
    """Ray on this node: the head of a cluster, or a member of the one at `head`.

    Raises `ClusterError` when it cannot be started.
    """

    def __init__(self, options: NodeOptions, head: str | None = None) -> None:
        self._options = options
        options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = options.folder / "start.log"
        self._process = spawn(
            command(options, head),
            env=_ENVIRONMENT | _interface(options.address),
            log=self._log,
        )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def cluster_address(self) -> str:
        """The cluster's address, once the head that was started here has one."""
        file = self._options.folder / "ray_current_cluster"
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self.is_alive():
            with suppress(OSError):
                if text := file.read_text().strip():
                    return text
            time.sleep(0.1)
        raise ClusterError(f"{socket.gethostname()}: Ray does not start: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what Ray printed."""
        try:
            return last_lines(self._log.read_text(errors="replace"))
        except OSError:
            return ""

    def stop(self) -> None:
        """End all processes of Ray on this node, and its folder."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            started = [root, *root.children(recursive=True)]
            root.terminate()
            end_all(started)
        self._process.wait()
        shutil.rmtree(self._options.folder, ignore_errors=True)


def command(options: NodeOptions, head: str | None) -> list[str]:
    """The command that starts Ray, and lives as long as it. Every port is one that is free."""
    program = str(Path(sysconfig.get_path("scripts")) / "ray")
    free = [f"--{name}=0" for name in ("node-manager-port", "object-manager-port")]
    free += [f"--{name}=0" for name in ("min-worker-port", "max-worker-port")]
    role = (
        ["--head", "--port=0", "--include-dashboard=false"]
        if head is None
        else [f"--address={head}"]
    )
    return [
        program,
        "start",
        *role,
        "--block",
        f"--node-name={options.name}",
        f"--node-ip-address={options.address}",
        f"--num-cpus={options.num_cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={options.folder}",
        "--disable-usage-stats",
        *free,
    ]


def end_all(processes: list[psutil.Process]) -> None:
    """Wait for processes that were told to end, and kill what does not.

    Workers of Ray 2.60 can hang in their exit handler for ever, on a lock of an event loop that is
    destroyed already: about one run in ten left its train controller behind.
    """
    _, left = psutil.wait_procs(processes, timeout=_END_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_END_S)


def _interface(address: str) -> dict[str, str]:
    """Collectives go where Ray goes: host names often lead to another interface, or to loopback."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    return {}


def address_of_interface(name: str) -> str:
    """The IPv4 address of an interface of this node. Raises `ClusterError` when it has none."""
    known = psutil.net_if_addrs()
    for found in known.get(name, []):
        if found.family == socket.AF_INET:
            return found.address
    raise ClusterError(
        f"cluster.interface = {name}: {socket.gethostname()} has no such interface with an IPv4 "
        f"address; it has {', '.join(sorted(known))}"
    )
