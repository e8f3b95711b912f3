"""What the doctor makes of facts about nodes. No node is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from cluster.shared_folders import Sight
from launcher.doctor.facts import Clock, Gpu, NodeFacts, Room, parse_gpus
from launcher.doctor.findings import Finding, error, to_leave_out, warning
from launcher.doctor.node_checks import OPEN_FILES, check_folders, check_nodes

GIB = 2**30
H100 = Gpu(name="H100", memory_bytes=80 * GIB, driver="570.1", compute_capability="9.0")


def node(name: str, **changes: Any) -> NodeFacts:
    facts = NodeFacts(
        node=name,
        versions={"python": "3.12.3", "peft": "0.21.2", "flash-attn": "absent"},
        cpu_bfloat16=True,
        cpus=8,
        offered_gpus=0,
        memory_bytes=64 * GIB,
        available_bytes=60 * GIB,
        shm_bytes=32 * GIB,
        open_files=OPEN_FILES,
        open_files_hard=OPEN_FILES,
        rooms={"/tmp": Room(total_bytes=100 * GIB, free_bytes=50 * GIB)},
    )
    return dataclasses.replace(facts, **changes)


def versions(**changes: str) -> dict[str, str]:
    return {**node("").versions, **changes}


def found(*nodes: NodeFacts) -> list[Finding]:
    return list(check_nodes(nodes, store_bytes=GIB))


def only(*nodes: NodeFacts) -> Finding:
    (one,) = found(*nodes)
    return one


def test_nothing_is_wrong_with_equal_nodes():
    assert found(node("a")) == []
    assert found(node("a"), node("b"), node("c")) == []


def test_an_odd_version_is_named_against_the_majority():
    odd = node("c", versions=versions(peft="0.20.0"))
    one = only(node("a"), node("b"), odd)
    assert (one.node, one.severity, one.leave_out) == ("c", "error", True)
    assert one.what == "peft is 0.20.0, on most nodes 0.21.2"
    assert "pip install" in one.remedy


def test_a_package_that_is_absent_is_an_odd_version():
    without = {name: text for name, text in versions().items() if name != "peft"}
    assert only(node("a"), node("b"), node("c", versions=without)).what.startswith("peft is absent")


def test_two_nodes_that_differ_are_nobodys_fault():
    one = only(node("a"), node("b", versions=versions(peft="0.20.0")))
    assert (one.node, one.leave_out) == (None, False)
    assert one.what == "peft is not the same everywhere: 0.21.2 on a; 0.20.0 on b"


def test_an_optional_kernel_on_some_nodes_is_a_warning():
    one = only(node("a"), node("b"), node("c", versions=versions(**{"flash-attn": "2.8"})))
    assert (one.node, one.severity, one.leave_out) == ("c", "warning", False)


def test_torch_built_for_another_cuda():
    one = only(node("a", cuda="13.0"), node("b", cuda="13.0"), node("c"))
    assert one.what == "the CUDA that torch is built for is none, on most nodes 13.0"


def test_drivers_and_kinds_of_gpus_are_compared_among_those_that_have_any():
    old = dataclasses.replace(H100, driver="535.2")
    small = dataclasses.replace(H100, name="A10")
    one = only(*(node(name, gpus=(H100,)) for name in "ab"), node("c", gpus=(old,)), node("d"))
    assert one.what == "the NVIDIA driver is 535.2, on most nodes 570.1"
    one = only(*(node(name, gpus=(H100,)) for name in "ab"), node("c", gpus=(H100, small)))
    assert one.what == "the kind of GPU is A10 + H100, on most nodes H100"


def test_gpus_that_torch_cannot_use():
    broken = node("a", gpus=(H100,), cuda="13.0", gpu_error="driver too old")
    one = only(broken)
    assert (one.node, one.severity) == ("a", "error")
    assert "(driver too old); torch is built for CUDA 13.0, the driver is 570.1" in one.what


def test_a_package_that_shoal_cannot_work_with():
    one = only(node("a", unmet=("torch is 2.5.0, shoal needs >=2.11",)))
    assert (one.what, one.severity) == ("torch is 2.5.0, shoal needs >=2.11", "error")


@pytest.mark.parametrize(
    ("soft", "hard", "alone", "said"),
    [
        (1024, OPEN_FILES, True, "ulimit -n 8192"),
        (1024, -1, True, "ulimit -n 8192"),
        (1024, 4096, True, "hard limit, which is 4,096"),
        (20_000, 20_000, True, None),
        (20_000, 20_000, False, "hard limit, which is 20,000"),
    ],
)
def test_open_files(soft: int, hard: int, alone: bool, said: str | None):
    poor = node("a", open_files=soft, open_files_hard=hard)
    findings = found(poor) if alone else found(poor, node("b"), node("c"))
    assert [one.severity for one in findings] == (["warning"] if said else [])
    assert said is None or said in findings[0].remedy


def test_shared_memory_and_a_full_disk():
    one = only(node("a", shm_bytes=64 * 2**20))
    assert "/dev/shm has 64.0 MiB" in one.what
    assert list(check_nodes([node("a", shm_bytes=64 * 2**20)], store_bytes=0)) == []
    full = {"/tmp": Room(total_bytes=100 * GIB, free_bytes=4 * GIB)}
    assert "/tmp has 4.00 GiB free of 100 GiB" in only(node("a", rooms=full)).what


def clocks(**ahead_s: float) -> list[NodeFacts]:
    return [
        node(name, clock=Clock(ahead_s=ahead, uncertainty_s=0.1)) for name, ahead in ahead_s.items()
    ]


def test_a_clock_is_compared_with_most_clocks_not_with_that_of_the_first():
    """a asks, and is itself the one that is wrong."""
    one = only(*clocks(a=0.0, b=5.0, c=5.1))
    assert (one.node, one.severity) == ("a", "warning")
    assert one.what == "its clock is 5.0 s behind (± 0.10 s)"


def test_clocks_within_what_can_be_told_are_right():
    assert found(*clocks(a=0.0, b=1.05, c=0.0)) == []
    assert found(node("a", clock=Clock(ahead_s=0.0, uncertainty_s=0.0)), node("b"), node("c")) == []


def test_of_two_clocks_the_one_that_asks_is_believed():
    one = only(*clocks(a=0.0, b=-120.0))
    assert (one.node, one.severity, one.leave_out) == ("b", "error", True)
    assert "120.0 s behind" in one.what


# --- folders -------------------------------------------------------------------------------------

FOLDER = {"storage.path": "/runs"}


def folders(**sights: Sight) -> list[Finding]:
    seen: Mapping[str, Mapping[str, Sight]] = {
        name: {"storage.path": sight} for name, sight in sights.items()
    }
    return list(check_folders(FOLDER, seen))


def test_a_folder_that_all_see():
    assert folders(a=Sight(), b=Sight(), c=Sight()) == []


def test_the_node_with_another_folder_is_named():
    (one,) = folders(a=Sight(unseen=("c",)), b=Sight(unseen=("c",)), c=Sight(unseen=("a", "b")))
    assert (one.node, one.leave_out) == ("c", True)
    assert "storage.path = /runs: is another folder there" in one.what
    assert "what a, b wrote" in one.what
    assert "s3://" in one.remedy


def test_a_node_that_cannot_write_is_named():
    (one,) = folders(a=Sight(), b=Sight(), c=Sight(error="Read-only file system"))
    assert one.node == "c"
    assert "cannot be used there (Read-only file system)" in one.what


def test_one_direction_is_enough_to_be_apart():
    """c's file is not seen by the others, though it sees theirs: a mount that writes elsewhere."""
    (one,) = folders(a=Sight(unseen=("c",)), b=Sight(unseen=("c",)), c=Sight())
    assert one.node == "c"


def test_a_folder_of_each_nodes_own_is_nobodys_fault():
    (one,) = folders(a=Sight(unseen=("b",)), b=Sight(unseen=("a",)))
    assert (one.node, one.leave_out) == (None, False)
    assert "each node has a folder of its own" in one.what


def test_a_folder_that_only_the_first_has_is_nobodys_fault():
    absent = Sight(error="No such file or directory")
    (one,) = folders(a=Sight(), b=absent, c=absent)
    assert one.node is None
    assert "cannot be used on b, c (No such file or directory)" in one.what


# --- whom to leave out ---------------------------------------------------------------------------


def test_who_is_left_out():
    findings = [
        error("b", "x", ""),
        error("b", "y", ""),
        warning("a", "z", ""),
        error(None, "", ""),
    ]
    assert to_leave_out(findings, ["a", "b"]) == ["b"]
    assert to_leave_out(findings, ["b"]) == []
    assert to_leave_out([error("absent", "", "")], ["a"]) == ["absent"]


def test_the_table_of_nvidia_smi():
    table = "NVIDIA H100 80GB HBM3, 81559, 570.86.10, 9.0\nNVIDIA GB10, [N/A], 580.95, 12.1\n"
    first, second = parse_gpus(table)
    assert first == Gpu(
        name="NVIDIA H100 80GB HBM3",
        memory_bytes=81559 * 2**20,
        driver="570.86.10",
        compute_capability="9.0",
    )
    assert second.memory_bytes == 0
    assert parse_gpus("No devices were found\n") == ()
