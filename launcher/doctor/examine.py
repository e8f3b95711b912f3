"""The examination: every node of a recipe's place is asked, and what was learnt is checked.

Only what nodes say and do comes from Ray; findings are functions of it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import shared_folders
from cluster.asking import Silent, answers, nodes, offers, on
from cluster.inside import job_nodes
from cluster.ray_cluster import connected
from cluster.ray_node import OBJECT_STORE_BYTES
from launcher.common_ground import make_folders
from launcher.doctor import network
from launcher.doctor.facts import Clock, NodeFacts
from launcher.doctor.findings import Finding, error
from launcher.doctor.links import Link, check_links
from launcher.doctor.node_checks import check_folders, check_nodes
from launcher.doctor.probe import Probe
from launcher.doctor.recipe_checks import check_missing, check_recipe, machine_of, needs_of
from launcher.doctor.report import Report
from launcher.plan.known import look
from launcher.plan.plan import make_plan
from launcher.records import runs
from launcher.session import connected_with_display
from launcher.terminal import Display
from recipes.address import is_address
from recipes.errors import ShoalError
from recipes.recipe import Recipe

# Longer than a node may take to try its GPUs.
_ASK_S = 180.0
_CLOCK_S = 5.0
_CLOCK_TIMES = 5


def examine(recipe: Recipe, display: Display, *, measure_network: bool) -> Report:
    """Raises `ClusterError` when the place cannot be reached at all."""
    with connected_with_display(connected, _forgiving(recipe), display):
        return _examine(recipe, display, measure_network=measure_network)


def _forgiving(recipe: Recipe) -> Recipe:
    """Nodes that do not come to a job are a finding, not the end of it."""
    most = max(2, recipe.cluster.most_workers)
    cluster = dataclasses.replace(recipe.cluster, workers=[1, most])
    return dataclasses.replace(recipe, cluster=cluster)


def _examine(recipe: Recipe, display: Display, *, measure_network: bool) -> Report:
    hosts = nodes()
    probes = {node: Probe.options(scheduling_strategy=on(node)).remote() for node in hosts}  # type: ignore[attr-defined]
    display.phase("asking the nodes", 0, 0)
    asked = {node: probe.collect.remote(_folders(recipe)) for node, probe in probes.items()}
    told = answers(asked, _ASK_S)
    facts = _named(told, {node: probes[node] for node in told})
    display.phase("asking the nodes", 1, 1)

    findings = [_silent(hosts[n], a.why) for n, a in told.items() if isinstance(a, Silent)]
    findings += _absent({f.node for f in facts.values()} | {one.node for one in findings})
    found = list(facts.values())
    names = {node: one.node for node, one in facts.items()}
    store_bytes = 0 if recipe.cluster.kind == "ray" else OBJECT_STORE_BYTES
    findings += check_nodes(found, store_bytes=store_bytes)
    findings += _storage(recipe, names, display)
    findings += _recipe(recipe, found)
    links: list[Link] = []
    if measure_network and len(found) > 1:
        gpus = [node for node, one in facts.items() if one.offered_gpus]
        measured = network.links(
            {node: probes[node] for node in facts},
            gpus=gpus if len(gpus) > 1 and recipe.cluster.device != "cpu" else [],
            progress=display.phase,
        )
        links = [
            dataclasses.replace(link, nodes=(names[link.nodes[0]], names[link.nodes[1]]))
            for link in measured
        ]
        findings += check_links(links)
    return Report(nodes=tuple(found), links=tuple(links), findings=tuple(findings))


def _folders(recipe: Recipe) -> dict[str, Path]:
    folders = {"storage.cache": Path(recipe.storage.cache)}
    if not is_address(recipe.storage.path):
        folders["storage.path"] = Path(recipe.storage.path)
    return folders


def _named(told: Mapping[str, Any], probes: Mapping[str, Any]) -> dict[str, NodeFacts]:
    """What the nodes have told, with what Ray and a look at the clock add; by Ray's ids."""
    facts: dict[str, NodeFacts] = {}
    for node, answer in told.items():
        if isinstance(answer, Silent):
            continue
        # Several nodes of Ray may be on one host.
        taken = answer.node in {one.node for one in facts.values()}
        offered = offers(node)
        facts[node] = dataclasses.replace(
            answer,
            node=f"{answer.node}/{node[:6]}" if taken else answer.node,
            cpus=int(offered.get("CPU", 0)),
            offered_gpus=int(offered.get("GPU", 0)),
            clock=_clock(probes[node]),
        )
    return facts


def _clock(probe: Any) -> Clock | None:
    """The quickest of some answers is the surest."""
    found = []
    for _ in range(_CLOCK_TIMES):
        begin, begun = time.time(), time.perf_counter()
        told = answers({"": probe.clock.remote()}, _CLOCK_S)[""]
        took_s = time.perf_counter() - begun
        if isinstance(told, Silent):
            return None
        found.append(Clock(ahead_s=told - (begin + took_s / 2), uncertainty_s=took_s / 2))
    return min(found, key=lambda clock: clock.uncertainty_s)


def _silent(node: str, why: str) -> Finding:
    if "ModuleNotFoundError" in why:
        return error(node, f"has no shoal, or another one: {why}", "Install the same shoal there")
    return error(node, f"does not answer: {why}", "Look whether it is up, and what runs on it")


def _absent(known: Iterable[str | None]) -> Iterator[Finding]:
    """Nodes that the scheduler has given, and that have not come."""
    for node in sorted(set(job_nodes()) - set(known)):
        yield error(
            node,
            "has not come within cluster.form_s",
            "See what it printed in the job's log; shoal, its network or its storage may be amiss",
        )


def _storage(recipe: Recipe, names: Mapping[str, str], display: Display) -> Iterator[Finding]:
    """`names` of the nodes by Ray's ids."""
    try:
        runs.check_writable(recipe.storage.path)
        if len(names) < 2:
            return
        folders = make_folders(recipe.storage.path, Path(recipe.storage.cache))
    except ShoalError as wrong:
        yield error(None, str(wrong), "")
        return
    display.phase("looking at the storage", 0, 0)
    seen = {}
    for node, sights in shared_folders.look(folders, names).items():
        if isinstance(sights, Silent):
            yield _silent(names[node], sights.why)
            continue
        seen[names[node]] = {
            key: dataclasses.replace(sight, unseen=tuple(names[other] for other in sight.unseen))
            for key, sight in sights.items()
        }
    yield from check_folders({key: str(folder) for key, folder in folders.items()}, seen)
    display.phase("looking at the storage", 1, 1)


def _recipe(recipe: Recipe, found: Sequence[NodeFacts]) -> Iterator[Finding]:
    machine = machine_of(recipe, found)
    try:
        plan = make_plan(recipe, look(recipe, machine))
    except ShoalError as wrong:
        yield error(None, str(wrong), "")
        return
    yield from check_missing(recipe, plan.missing)
    key = "storage.cache" if is_address(recipe.storage.path) else "storage.path"
    yield from check_recipe(needs_of(recipe, plan, gpu=machine.gpu, disk_key=key), found)
