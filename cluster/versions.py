"""Whether all nodes have the same software: shoal, and what its ranks speak to each other by.

What a node has is looked up where Ray's workers run, which need not be where `shoal` is: a raylet
that was started from another environment gives its workers that one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from cluster.asking import Silent, ask, nodes
from cluster.nodes import own_node
from recipes.errors import ClusterError
from recipes.listing import listed

SHOAL = "shoal"
"""Among `Installed.versions`: a digest of shoal's own source files, which may have been sent along
with a job or changed since they were installed."""

_TIMEOUT_S = 120.0

# Ranks speak to each other in the words of these: another version may hang, or compute nonsense.
_SPOKEN = ("python", "ray", "torch", "deepspeed")
# Each rank builds its model with these, so that another version may build another.
_BUILT_WITH = ("transformers", "peft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What a node has installed."""

    host: str
    versions: Mapping[str, str]
    """By name, without what follows a plus: builds for a CPU and for CUDA are the same software.
    Of Python the first two numbers; empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Nodes that have something else than the driver."""

    name: str
    text: str
    """One line that names the nodes and what they have, without a full stop."""
    is_fatal: bool


def compare(driver: Installed, nodes: Sequence[Installed]) -> list[Difference]:
    """What nodes have in other versions than the driver; what matters most comes first."""
    found = []
    for name in (SHOAL, *_SPOKEN, *_BUILT_WITH):
        here = driver.versions[name]
        others: dict[str, list[str]] = {}
        for node in nodes:
            if (there := node.versions[name]) != here:
                others.setdefault(there, []).append(node.host)
        if others:
            told = "; ".join(
                f"{listed(hosts)} {'has' if len(hosts) == 1 else 'have'} {version or 'none'}"
                for version, hosts in sorted(others.items())
            )
            text = f"{name}: {told}, but {driver.host}, which drives the run, has {here}"
            found.append(Difference(name=name, text=text, is_fatal=name not in _BUILT_WITH))
    return found


def check_versions() -> list[str]:
    """Compare all nodes of the connected cluster with this process: what a person should know.

    Raises `ClusterError` where the run could not work.
    """
    hosts = nodes()
    # Where shoal is absent or another, nothing of it could be asked for by its name.
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    try:
        told = ask(hosts, _look, timeout_s=_TIMEOUT_S)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(module)
    for node, found in told.items():
        if isinstance(found, Silent):
            raise ClusterError(
                f"{hosts[node]} cannot be asked what it has installed: {found.why}. Look at Ray "
                "there, or take the node out of the cluster"
            )
    driver = Installed(host=hosts[own_node()], versions=look())
    others = [Installed(host=hosts[node], versions=found) for node, found in told.items()]
    differences = compare(driver, others)
    fatal = [difference.text for difference in differences if difference.is_fatal]
    if fatal:
        raise ClusterError(
            f"Not all nodes have the same software. {'. '.join(fatal)}. Install the same on every "
            "node, and start Ray there from that environment"
        )
    return [difference.text for difference in differences]


def look() -> dict[str, str]:
    """What is installed here, as `Installed.versions`.

    It needs nothing of shoal: it runs on nodes that have none.
    """
    import hashlib
    import sys
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec
    from pathlib import Path

    def version_of(name: str) -> str:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            return ""

    def version_of_shoal() -> str:
        digest = hashlib.sha256()
        for room in ("recipes", "adapters", "trainer", "cluster", "launcher"):
            package = find_spec(room)
            if package is None or package.origin is None:
                return ""
            top = Path(package.origin).parent
            for file in sorted(top.rglob("*.py")):
                digest.update(f"{room}/{file.relative_to(top)}\0".encode() + file.read_bytes())
        return f"sources {digest.hexdigest()[:12]}"

    names = ("ray", "torch", "deepspeed", "transformers", "peft")
    found = {name: version_of(name) for name in names}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"shoal": version_of_shoal(), "python": python} | found


@ray.remote(num_cpus=0, max_retries=0)
def _look(node: str) -> dict[str, str]:
    return look()
