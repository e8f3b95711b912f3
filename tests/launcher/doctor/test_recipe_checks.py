"""What a recipe needs against what nodes have. No node is asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from launcher.doctor.facts import Gpu, NodeFacts, Room
from launcher.doctor.findings import Finding
from launcher.doctor.recipe_checks import (
    Needs,
    check_missing,
    check_recipe,
    machine_of,
    uses_gpu,
)
from launcher.plan.memory import RAY_BYTES, Memory
from recipes.base import Base
from recipes.cluster import Cluster
from support.jobs import recipe

GIB = 2**30
T4 = Gpu(name="T4", memory_bytes=16 * GIB, driver="570.1", compute_capability="7.5")
NEEDS = Needs(
    least_workers=2,
    most_workers=4,
    cpus_per_worker=2,
    gpu=False,
    bfloat16=False,
    flash_attention=False,
)
MEMORY = Memory(**{field.name: 0 for field in dataclasses.fields(Memory)})


def node(name: str = "a", **changes: Any) -> NodeFacts:
    facts = NodeFacts(
        node=name,
        versions={},
        cpu_bfloat16=False,
        cpus=8,
        offered_gpus=0,
        memory_bytes=64 * GIB,
        available_bytes=60 * GIB,
        shm_bytes=GIB,
        open_files=65_536,
        open_files_hard=65_536,
        rooms={"storage.path": Room(total_bytes=100 * GIB, free_bytes=50 * GIB)},
    )
    return dataclasses.replace(facts, **changes)


def gpu_node(name: str = "a", **changes: Any) -> NodeFacts:
    return node(name, **{"gpus": (T4,) * 2, "offered_gpus": 2, **changes})


def found(*nodes: NodeFacts, **needs: Any) -> list[Finding]:
    return list(check_recipe(dataclasses.replace(NEEDS, **needs), nodes))


def only(*nodes: NodeFacts, **needs: Any) -> Finding:
    (one,) = found(*nodes, **needs)
    return one


@pytest.mark.parametrize(
    ("why", "source", "severity"),
    [
        (
            "base.source = org/model: is no folder, and has not been downloaded",
            "org/model",
            "warning",
        ),
        ("base.source = /m: there is no such folder.", "/m", "error"),
        ("data.train = /rows.jsonl: there is no such file.", "/m", "error"),
        ("data.train: there are no rows in its files", "/m", "error"),
        ("data.train: none of the first rows can be trained on. /a row 1: empty", "/m", "warning"),
    ],
)
def test_what_a_plan_lacks(why: str, source: str, severity: str):
    """An error is what would end a run."""
    asked = dataclasses.replace(recipe(), base=Base(source=source))
    assert list(check_missing(asked, [why])) == [
        Finding(node=None, what=why, remedy="", severity=severity)
    ]


def test_enough_of_everything():
    assert found(node()) == []
    assert found(gpu_node(), gpu=True) == []


def test_too_few_cores():
    """Cores left over on two nodes make no worker."""
    one = only(node(cpus=3), node("b", cpus=3), least_workers=3)
    assert one.node is None
    assert one.what == ("cluster.workers = 3: there is room for 2, each with 2 of the 6 cores")
    assert one.remedy == "Set cluster.workers=2"


def test_too_few_gpus():
    one = only(gpu_node(), gpu=True, least_workers=3)
    assert "there is room for 2, each with 2 of the 8 cores and 2 GPUs" in one.what
    assert one.remedy == "Set cluster.workers=2, or set cluster.device=cpu"


def test_a_node_without_a_gpu_among_others():
    one = only(gpu_node(), node("b"), gpu=True)
    assert (one.node, one.severity, one.leave_out) == ("b", "warning", False)


def test_memory_is_that_of_the_workers_that_come_to_a_node():
    """Without GPUs workers are spread: of four, two come to each of two nodes."""
    memory = dataclasses.replace(MEMORY, parameters=20 * GIB)
    one = only(node(memory_bytes=30 * GIB), node("b"), memory=memory)
    assert (one.node, one.leave_out) == ("a", True)
    assert one.what.startswith(f"2 workers will take {40 + RAY_BYTES / GIB:.1f} GiB")
    assert found(node(memory_bytes=45 * GIB), node("b"), memory=memory) == []
    everything = found(node(), memory=memory)  # four of 20 GiB on one
    assert [one.node for one in everything] == ["a"]


def test_memory_that_others_hold_is_a_warning():
    memory = dataclasses.replace(MEMORY, parameters=10 * GIB)
    one = only(node(available_bytes=9 * GIB), memory=memory)
    assert (one.severity, one.remedy) == ("warning", "End what else runs there")


def test_the_memory_of_a_gpu():
    memory = dataclasses.replace(MEMORY, parameters=20 * GIB, on_gpu=True)
    one = only(gpu_node(), gpu=True, memory=memory)
    assert one.what == "a worker will take 20.0 GiB of a GPU, the smallest has 16.0 GiB"
    # Some GPUs share the host's memory, and tell none of their own.
    shared = dataclasses.replace(T4, memory_bytes=0)
    assert found(gpu_node(gpus=(shared,) * 2), gpu=True, memory=memory) == []


def test_room_on_disk():
    one = only(node(), node("b"), disk_bytes=60 * GIB)
    assert one.node is None
    assert one.what == ("storage.path: 50.0 GiB are free, the checkpoints of a run take 60.0 GiB")
    assert found(node(), disk_bytes=40 * GIB) == []


@pytest.mark.parametrize(
    ("facts", "gpu", "said"),
    [
        (gpu_node(), True, "its T4 have no bfloat16"),
        (gpu_node(gpus=(dataclasses.replace(T4, compute_capability="8.0"),)), True, None),
        (gpu_node(gpus=(dataclasses.replace(T4, compute_capability="12.1"),)), True, None),
        (node(), False, "its CPU has no instructions for bfloat16"),
        (node(cpu_bfloat16=True), False, None),
    ],
)
def test_bfloat16(facts: NodeFacts, gpu: bool, said: str | None):
    findings = found(facts, gpu=gpu, bfloat16=True)
    assert [one.severity for one in findings] == (["warning"] if said else [])
    assert said is None or said in findings[0].what


def test_flash_attention_that_is_not_installed():
    there = gpu_node(versions={"flash-attn": "2.8.3"})
    one = only(there, gpu_node("b"), gpu=True, flash_attention=True)
    assert (one.node, one.severity) == ("b", "error")


@pytest.mark.parametrize(
    ("device", "with_gpu", "expected"),
    [("auto", True, True), ("auto", False, False), ("cpu", True, False), ("gpu", False, True)],
)
def test_whether_gpus_are_used(device: str, with_gpu: bool, expected: bool):
    chosen = recipe(cluster=Cluster(device=device))  # type: ignore[arg-type]
    nodes = [node(), gpu_node("b")] if with_gpu else [node()]
    assert uses_gpu(chosen, nodes) is expected


def test_a_plan_counts_on_the_least_of_each():
    large = dataclasses.replace(T4, memory_bytes=80 * GIB)
    nodes = [gpu_node(memory_bytes=32 * GIB), gpu_node("b", gpus=(large,))]
    machine = machine_of(recipe(), nodes)
    assert machine.memory_bytes == 32 * GIB
    assert machine.gpu_memory_bytes == 16 * GIB
    assert not machine.fused_kernels
