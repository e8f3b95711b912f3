"""Checks of nodes, by themselves and against each other. Pure: facts in, findings out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from cluster.shared_folders import Sight, way_out
from launcher.doctor.facts import ABSENT, OPTIONAL, NodeFacts
from launcher.doctor.findings import Finding, error, majority, warning
from launcher.plan.report import bytes_text
from recipes.listing import listed

# Ray raises its own limit to the first where it may, and asks its users for the second at least;
# a connection to every process of many nodes is what takes more.
OPEN_FILES, OPEN_FILES_ALONE = 65_536, 8_192
# Ray refuses to write objects to a disk fuller than this (local_fs_capacity_threshold).
_FULL = 0.95
_SKEW_S = 1.0
# Credentials of munge, which SLURM uses, are good for five minutes; object storage allows fifteen.
_BAD_SKEW_S = 60.0

Make = Callable[[str | None, str, str], Finding]


def check_nodes(nodes: Sequence[NodeFacts], *, store_bytes: int) -> Iterator[Finding]:
    """Everything that is wrong whatever the recipe says. `store_bytes` is what Ray's object store
    wants of /dev/shm; 0 where it is somebody else's."""
    for facts in nodes:
        yield from _check_packages(facts)
        yield from _check_open_files(facts, OPEN_FILES if len(nodes) > 1 else OPEN_FILES_ALONE)
        yield from _check_room(facts, store_bytes)
    if len(nodes) > 1:
        yield from _check_versions(nodes)
        yield from _check_clocks(nodes)


def _check_packages(facts: NodeFacts) -> Iterator[Finding]:
    for line in facts.unmet:
        yield error(facts.node, line, "Install shoal there again: pip install -c constraints.txt .")
    if not facts.gpu_error:
        return
    built = f"torch is built for CUDA {facts.cuda}" if facts.cuda else "torch is built without CUDA"
    yield error(
        facts.node,
        f"torch cannot compute on its GPUs ({facts.gpu_error}); {built}, the driver is "
        f"{facts.gpus[0].driver}",
        "Install a torch for a CUDA that this driver knows (nvidia-smi shows it), or a newer "
        "driver; or set cluster.device=cpu",
    )


def _check_open_files(facts: NodeFacts, wanted: int) -> Iterator[Finding]:
    if facts.open_files >= wanted:
        return
    hard = facts.open_files_hard
    yield warning(
        facts.node,
        f"a process may open {facts.open_files:,} files, Ray wants {wanted:,}",
        f"ulimit -n {wanted} before Ray starts (on SLURM a line of slurm.setup)"
        if hard < 0 or hard >= wanted
        else f"Let an administrator raise the hard limit, which is {hard:,} "
        "(/etc/security/limits.conf, or LimitNOFILE of the service)",
    )


def _check_room(facts: NodeFacts, store_bytes: int) -> Iterator[Finding]:
    if facts.shm_bytes < store_bytes:
        yield warning(
            facts.node,
            f"/dev/shm has {bytes_text(facts.shm_bytes)}, Ray's object store takes "
            f"{bytes_text(store_bytes)} and will lie on the disk below /tmp instead",
            "Make /dev/shm larger; for a container --shm-size=2g",
        )
    tmp = facts.rooms.get("/tmp")
    if tmp is not None and tmp.free_bytes < (1 - _FULL) * tmp.total_bytes:
        yield warning(
            facts.node,
            f"/tmp has {bytes_text(tmp.free_bytes)} free of {bytes_text(tmp.total_bytes)}; Ray "
            f"stores nothing on a disk that is more than {_FULL:.0%} full",
            "Free some of it",
        )


def _check_versions(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    for package in sorted({name for facts in nodes for name in facts.versions}):
        found = {facts.node: facts.versions.get(package, ABSENT) for facts in nodes}
        make: Make = warning if package in OPTIONAL else error
        yield from _odd_ones(package, found, make, _remedy_of(package))
    built = {facts.node: facts.cuda or "none" for facts in nodes}
    yield from _odd_ones("the CUDA that torch is built for", built, error, _remedy_of("torch"))
    with_gpus = [facts for facts in nodes if facts.gpus]
    for what, values in {
        "the NVIDIA driver": {facts.node: facts.gpus[0].driver for facts in with_gpus},
        "the kind of GPU": {facts.node: _kinds(facts) for facts in with_gpus},
    }.items():
        remedy = "The slowest decides the speed of a step; leave the odd ones out"
        yield from _odd_ones(what, values, warning, remedy)


def _kinds(facts: NodeFacts) -> str:
    return " + ".join(sorted({gpu.name for gpu in facts.gpus}))


def _remedy_of(package: str) -> str:
    if package == "python":
        return "Install shoal there with the same Python"
    if package == "shoal":
        return "Install the same shoal on every node, or one on a folder that all see"
    return f"Install the same {package} on every node, by pip install -c constraints.txt"


def _odd_ones(what: str, values: Mapping[str, str], make: Make, remedy: str) -> Iterator[Finding]:
    """Whoever has not what most have; when there is no such most, nobody in particular."""
    if len(set(values.values())) < 2:
        return
    most = majority(values)
    if most is not None:
        for node, value in values.items():
            if value != most:
                yield make(node, f"{what} is {value}, on most nodes {most}", remedy)
        return
    by_value: dict[str, list[str]] = {}
    for node, value in values.items():
        by_value.setdefault(value, []).append(node)
    told = "; ".join(f"{value} on {listed(having)}" for value, having in by_value.items())
    yield make(None, f"{what} is not the same everywhere: {told}", remedy)


def _check_clocks(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Of two nodes nobody knows which one is wrong: the one that asks is believed."""
    ahead = {facts.node: facts.clock for facts in nodes if facts.clock is not None}
    if not ahead:
        return
    middle = statistics.median(clock.ahead_s for clock in ahead.values()) if len(ahead) > 2 else 0.0
    for node, clock in ahead.items():
        off = clock.ahead_s - middle
        surely = abs(off) - clock.uncertainty_s
        if surely <= _SKEW_S:
            continue
        make: Make = error if surely > _BAD_SKEW_S else warning
        yield make(
            node,
            f"its clock is {abs(off):.1f} s {'ahead' if off > 0 else 'behind'} "
            f"(± {clock.uncertainty_s:.2f} s)",
            "Let it keep time with the others (chrony, or timedatectl set-ntp true)",
        )


def check_folders(
    folders: Mapping[str, str], seen: Mapping[str, Mapping[str, Sight]]
) -> Iterator[Finding]:
    """Whether all nodes see the same folders. `folders` are paths by the recipe's key; `seen` by
    node, then by key, its `unseen` by node."""
    for key, path in folders.items():
        sights = {node: sights[key] for node, sights in seen.items()}
        yield from _check_folder(f"{key} = {path}", way_out(key), sights)


def _check_folder(what: str, remedy: str, sights: Mapping[str, Sight]) -> Iterator[Finding]:
    """Nodes that see each other's files share a folder. Those outside the folder of more than half
    are at fault; without such a folder it is the folder."""
    shared = max((_same(node, sights) for node in sights), key=len, default=frozenset())
    outside = [node for node in sights if node not in shared]
    if not outside:
        return
    details = {
        node: f"cannot be used there ({sights[node].error})"
        if sights[node].error
        else f"is another folder there, which does not hold what {listed(sorted(shared))} wrote"
        for node in outside
    }
    if 2 * len(shared) > len(sights):
        for node, detail in details.items():
            yield error(node, f"{what}: {detail}", remedy)
        return
    unusable = [node for node in sights if sights[node].error]
    told = (
        f"cannot be used on {listed(unusable)} ({sights[unusable[0]].error})"
        if unusable
        else ("each node has a folder of its own of that name")
    )
    yield error(None, f"{what}: {told}", remedy)


def _same(node: str, sights: Mapping[str, Sight]) -> frozenset[str]:
    """The nodes whose files this one sees, and that see its own."""
    if sights[node].error:
        return frozenset()
    return frozenset(
        other
        for other, sight in sights.items()
        if not sight.error and other not in sights[node].unseen and node not in sight.unseen
    )
