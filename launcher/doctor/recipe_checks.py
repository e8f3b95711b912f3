"""Checks of nodes against what a recipe needs of them. Pure: facts in, findings out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launcher.doctor.facts import ABSENT, NodeFacts
from launcher.doctor.findings import Finding, error, warning
from launcher.plan.machine import Machine
from launcher.plan.memory import Memory, node_bytes
from launcher.plan.plan import Plan
from launcher.plan.report import bytes_text
from launcher.plan.rows import NONE_SEEN
from recipes.recipe import Recipe

_BFLOAT16_SINCE = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a run of a recipe needs of its nodes. None is what the plan does not know."""

    least_workers: int
    most_workers: int
    cpus_per_worker: int
    gpu: bool
    bfloat16: bool
    flash_attention: bool
    memory: Memory | None = None
    disk_bytes: int | None = None
    disk_key: str = "storage.path"
    """The recipe's key of the folder that the run is written to."""


def uses_gpu(recipe: Recipe, nodes: Sequence[NodeFacts]) -> bool:
    """Whether workers would get GPUs here, as a run decides it."""
    device = recipe.cluster.device
    return device == "gpu" or (device == "auto" and any(facts.offered_gpus for facts in nodes))


def machine_of(recipe: Recipe, nodes: Sequence[NodeFacts]) -> Machine:
    """The least of each: what a plan may count on."""
    gpu = uses_gpu(recipe, nodes)
    gpu_memory = [size for facts in nodes for size in _gpu_sizes(facts)]
    kernels = (facts.versions.get("liger-kernel", ABSENT) for facts in nodes)
    return Machine(
        where="a node",
        gpu=gpu,
        memory_bytes=min((facts.memory_bytes for facts in nodes), default=None),
        gpu_memory_bytes=min(gpu_memory, default=None) if gpu else None,
        workers_per_node=None,
        fused_kernels=gpu and ABSENT not in kernels,
    )


def _gpu_sizes(facts: NodeFacts) -> list[int]:
    """Bytes of each GPU that tells them: one that shares the host's memory does not."""
    return [gpu.memory_bytes for gpu in facts.gpus if gpu.memory_bytes]


def needs_of(recipe: Recipe, plan: Plan, *, gpu: bool, disk_key: str) -> Needs:
    return Needs(
        least_workers=recipe.cluster.least_workers,
        most_workers=recipe.cluster.most_workers,
        cpus_per_worker=recipe.cluster.cpus_per_worker,
        gpu=gpu,
        bfloat16=plan.element_bytes == 2,
        flash_attention=gpu and recipe.base.attention == "flash_attention_2",
        memory=plan.memory,
        disk_bytes=plan.disk.needed_bytes if plan.disk is not None else None,
        disk_key=disk_key,
    )


def check_missing(recipe: Recipe, missing: Sequence[str]) -> Iterator[Finding]:
    """What a plan could not be made of, each by its reason; the rest would end a run."""
    is_hub_id = not (recipe.base.source.startswith("sample:") or os.path.isabs(recipe.base.source))
    for why in missing:
        # A run downloads a base of the hub; until then nobody knows what it takes. And usable rows
        # may come later in a file than a plan looks.
        may_pass = (is_hub_id and why.startswith("base.source")) or why.startswith(NONE_SEEN)
        yield (warning if may_pass else error)(None, why, "")


def check_recipe(needs: Needs, nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Everything that these nodes lack for the recipe."""
    yield from _check_workers(needs, nodes)
    yield from _check_disk(needs, nodes)
    for facts in nodes:
        ranks = _ranks(needs, facts, len(nodes))
        if needs.memory is not None and ranks:
            yield from _check_memory(needs.memory, facts, ranks)
        if needs.bfloat16:
            yield from _check_bfloat16(needs, facts)
        if needs.flash_attention and facts.versions.get("flash-attn", ABSENT) == ABSENT:
            yield error(
                facts.node,
                "base.attention = flash_attention_2: flash-attn is not installed",
                "Install it on every node, or set base.attention=auto",
            )


def _room_for(needs: Needs, facts: NodeFacts) -> int:
    """Workers that a node has the cores and GPUs for."""
    by_cores = facts.cpus // needs.cpus_per_worker
    return min(by_cores, facts.offered_gpus) if needs.gpu else by_cores


def _ranks(needs: Needs, facts: NodeFacts, num_nodes: int) -> int:
    """The most workers that will be on a node: without GPUs they are spread, with GPUs packed."""
    share = needs.most_workers if needs.gpu else -(-needs.most_workers // num_nodes)
    return min(_room_for(needs, facts), share)


def _check_workers(needs: Needs, nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    room = sum(_room_for(needs, facts) for facts in nodes)
    if room < needs.least_workers:
        cores = sum(facts.cpus for facts in nodes)
        gpus = f" and {sum(facts.offered_gpus for facts in nodes)} GPUs" if needs.gpu else ""
        remedies = [f"Set cluster.workers={room}"] if room else ["Ask for larger nodes"]
        remedies += ["set cluster.device=cpu"] if needs.gpu else []
        yield error(
            None,
            f"cluster.workers = {needs.least_workers}: there is room for {room}, each with "
            f"{needs.cpus_per_worker} of the {cores} cores{gpus}",
            ", or ".join(remedies),
        )
    if needs.gpu:
        for facts in nodes:
            if not facts.offered_gpus:
                yield warning(
                    facts.node,
                    "has no GPU, and will train nothing",
                    "Look at nvidia-smi there; on SLURM ask with slurm.gpus_per_node",
                )


def _check_disk(needs: Needs, nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    rooms = [facts.rooms[needs.disk_key] for facts in nodes if needs.disk_key in facts.rooms]
    free = min((room.free_bytes for room in rooms), default=None)
    if needs.disk_bytes is not None and free is not None and free < needs.disk_bytes:
        yield error(
            None,
            f"{needs.disk_key}: {bytes_text(free)} are free, the checkpoints of a run take "
            f"{bytes_text(needs.disk_bytes)}",
            "Free some, name another folder, or lower checkpoint.keep",
        )


def _check_memory(memory: Memory, facts: NodeFacts, ranks: int) -> Iterator[Finding]:
    needed = node_bytes(memory, ranks)
    workers = "1 worker" if ranks == 1 else f"{ranks} workers"
    text = f"{workers} will take {bytes_text(needed)} of its memory"
    remedy = "Fewer workers on a node, or what `shoal plan` says would fit"
    if needed > facts.memory_bytes:
        yield error(facts.node, f"{text}, it has {bytes_text(facts.memory_bytes)}", remedy)
    elif needed > facts.available_bytes:
        yield warning(
            facts.node,
            f"{text}, {bytes_text(facts.available_bytes)} are free",
            "End what else runs there",
        )
    smallest = min(_gpu_sizes(facts), default=None)
    if memory.on_gpu and smallest is not None and memory.device > smallest:
        yield error(
            facts.node,
            f"a worker will take {bytes_text(memory.device)} of a GPU, the smallest has "
            f"{bytes_text(smallest)}",
            "See `shoal plan` for the nearest change that would fit",
        )


def _check_bfloat16(needs: Needs, facts: NodeFacts) -> Iterator[Finding]:
    if needs.gpu:
        for gpu in facts.gpus[:1]:
            major, _, minor = gpu.compute_capability.partition(".")
            if major.isdigit() and (int(major), int(minor or 0)) < _BFLOAT16_SINCE:
                yield warning(
                    facts.node,
                    f"its {gpu.name} have no bfloat16, which is then emulated",
                    "Set base.dtype=float32, or use GPUs of Ampere or later",
                )
    elif not facts.cpu_bfloat16:
        yield warning(
            facts.node,
            "its CPU has no instructions for bfloat16, which is then a hundred times slower",
            "Set base.dtype=auto, which measures, or float32",
        )
