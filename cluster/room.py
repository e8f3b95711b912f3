"""How much room each node has for a folder: quotas and mounts may differ from node to node."""

from __future__ import annotations

import shutil
from pathlib import Path

import ray

from cluster.asking import Silent, ask, nodes
from recipes.files import existing

_TIMEOUT_S = 60.0


def free_bytes(folder: Path) -> dict[str, int]:
    """Free bytes where a folder is, or will be, as each node that answers sees it, by host."""
    hosts = nodes()
    told = ask(hosts, _free_bytes, folder, timeout_s=_TIMEOUT_S)
    return {hosts[node]: free for node, free in told.items() if not isinstance(free, Silent)}


@ray.remote(num_cpus=0, max_retries=0)
def _free_bytes(node: str, folder: Path) -> int:
    return shutil.disk_usage(existing(folder)).free
