"""Which nodes a job is not to get again, from what SLURM says of them."""

from __future__ import annotations

import dataclasses

import pytest

from cluster.slurm.commands import SlurmNode
from cluster.slurm.exclusion import choose, given_again

NODE = SlurmNode(
    name="n1",
    state="allocated",
    cpus=64,
    memory_mb=500_000,
    features=frozenset({"a100", "ib"}),
    resources="gpu:8",
)


def like(name: str, **changes: object) -> SlurmNode:
    return dataclasses.replace(NODE, name=name, **changes)  # type: ignore[arg-type]


def leave_out_n2(*others: SlurmNode, before: str = "", excluded: tuple[str, ...] = ()) -> str:
    """The nodes left out of a job on n1 and n2 of which n2 is bad; empty when it has to stay."""
    found = choose(
        ["n2"],
        before=before,
        excluded=excluded,
        own=["n1", "n2"],
        partition="gpu",
        nodes=[NODE, like("n2"), *others],
    )
    assert found.bad == ("n2",)
    assert ("Queuing again without n2" if found.every else "Not left out: n2.") in found.why
    return found.every


def test_a_bad_node_is_left_out_where_there_is_another():
    assert leave_out_n2(like("n3")) == "n2"
    assert leave_out_n2() == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "down"},
        {"state": "idle*"},  # does not answer
        {"state": "drained"},
        {"state": "draining"},
        {"cpus": 32},
        {"memory_mb": 250_000},
        {"features": frozenset({"ib"})},
        {"resources": "gpu:4"},
    ],
)
def test_what_cannot_do_the_work_is_no_other(changes: dict[str, object]):
    assert leave_out_n2(like("n3", **changes)) == ""


@pytest.mark.parametrize("state", ["idle", "idle~", "mixed", "allocated", "completing", "planned"])
def test_what_is_used_or_asleep_will_come(state: str):
    assert leave_out_n2(like("n3", state=state, memory_mb=490_000)) == "n2"


def test_what_was_left_out_before_stays_so_and_does_not_count():
    before = {"before": "n[3-4]", "excluded": ("n3", "n4")}
    assert leave_out_n2(like("n3"), like("n4"), **before) == ""  # type: ignore[arg-type]
    found = leave_out_n2(like("n3"), like("n4"), like("n5"), **before)  # type: ignore[arg-type]
    assert found == "n[3-4],n2"


def test_a_reservation_has_no_other_nodes():
    found = choose(
        ["n2"],
        before="",
        excluded=[],
        own=["n1", "n2"],
        partition="gpu",
        nodes=[NODE, like("n2"), like("n3")],
        reservation="ours",
    )
    assert found.every == ""
    assert "ours" in found.why


def test_what_slurm_knows_to_be_dead_is_left_to_it():
    """It would not take it of a job from which it has removed the node itself."""
    nodes = [NODE, like("n2", state="down*"), like("n3", state="allocated*"), like("n4")]
    assert given_again(["n4", "n3", "n2", "n1"], nodes) == ["n1", "n4"]
    assert given_again(["n2"], nodes) == []
