"""What is done about a fault, without a cluster."""

from __future__ import annotations

import dataclasses

import pytest

from launcher.driving.policy import Fault, blamed, choose_workers, decide, is_early, must_stop
from recipes.failure import Failure


def fault(kind: str = "worker", step: int = 7, saved: int = 0, node: str | None = None) -> Fault:
    return Fault(kind=kind, what="it broke", step=step, saved=saved, node=node)  # type: ignore[arg-type]


LIMITS = Failure(max_restarts=3, backoff_s=2.0)


@pytest.mark.parametrize("kind", ["worker", "node", "hang", "cluster", "storage"])
def test_a_fault_of_the_machine_is_worth_a_restart(kind: str):
    decision = decide([fault(kind)], LIMITS)
    assert decision.action == "restart"
    assert decision.wait_s == 2.0


def test_a_mistake_is_not():
    assert decide([fault("mistake")], LIMITS).action == "stop"


@pytest.mark.parametrize("kind", ["memory", "code"])
def test_what_fails_twice_at_the_same_step_is_no_machine(kind: str):
    assert decide([fault(kind, step=7)], LIMITS).action == "restart"
    again = decide([fault(kind, step=7), fault(kind, step=7)], LIMITS)
    assert again.action == "stop"
    assert "twice after step 7" in again.why
    assert decide([fault(kind, step=7), fault(kind, step=9)], LIMITS).action == "restart"


def test_waits_double_and_end():
    faults = [fault(step=number) for number in range(4)]
    waits = [decide(faults[: count + 1], LIMITS).wait_s for count in range(3)]
    assert waits == [2.0, 4.0, 8.0]
    last = decide(faults, LIMITS)
    assert last.action == "stop"
    assert "failure.max_restarts = 3" in last.why


def test_a_new_checkpoint_begins_the_count_anew():
    faults = [fault(saved=saved) for saved in (0, 0, 0, 50)]
    assert decide(faults, LIMITS).action == "restart"
    assert decide(faults, LIMITS).wait_s == 2.0


def test_the_wait_has_an_end():
    limits = Failure(max_restarts=1000)
    assert decide([fault()] * 900, limits).wait_s == 300.0


def test_a_node_that_fails_twice_is_avoided_where_there_are_others():
    faults = [fault(node="a"), fault(node="b", saved=5), fault("hang", node="a", saved=9)]
    assert decide(faults, LIMITS, num_nodes=3).avoid == {"a"}
    assert decide(faults, LIMITS, num_nodes=1).avoid == frozenset()
    assert decide(faults[:2], LIMITS, num_nodes=3).avoid == frozenset()


def on(name: str, kind: str = "worker", saved: int = 0) -> Fault:
    return dataclasses.replace(fault(kind, saved=saved, node=f"id of {name}"), node_name=name)


@pytest.mark.parametrize(
    ("faults", "names"),
    [
        ([], set()),
        ([on("a")], {"a"}),
        ([on("a"), on("b", saved=5)], {"b"}),  # a has done its work again
        ([on("a", "node"), on("b", "hang", saved=5), on("c", saved=9)], {"a", "b", "c"}),
        ([on("a"), on("a", saved=5), on("b", saved=9)], {"a", "b"}),  # twice
        ([on("a", "memory"), on("b", "storage"), on("c", "mistake")], set()),
        ([fault("worker", node="x")], set()),  # nobody knows its name
    ],
)
def test_whom_a_job_that_queues_again_had_better_not_get(faults: list[Fault], names: set[str]):
    assert blamed(faults) == names


def test_a_signal_that_comes_early_is_not_about_the_time_limit():
    assert not is_early(100.0, None, 120)
    assert is_early(100.0, 280.0, 120)  # SLURM may be a minute early
    assert not is_early(100.0, 281.0, 120)


def test_a_signal_of_the_time_limit_is_heeded_when_the_recipe_says():
    """Later there might be no time to save, and to end so soon that SLURM lets it queue again."""
    assert is_early(100.0, 221.0, 120)
    assert not is_early(100.0, 220.0, 120)
    assert not is_early(100.0, 101.0, 120)


def test_no_restart_at_all():
    assert decide([fault()], Failure(max_restarts=0)).action == "stop"


@pytest.mark.parametrize("mode", ["skip", "rewind"])
def test_a_bad_loss_leaves_batches_out(mode: str):
    bad = Fault(kind="bad_loss", what="nan", step=7, batches=(5, 6))
    assert decide([bad], Failure(bad_loss="stop")).action == "stop"
    decision = decide([bad], Failure(bad_loss=mode))  # type: ignore[arg-type]
    assert decision.action == "restart"
    assert decision.skip == (5, 6)
    assert decide([bad] * 6, Failure(bad_loss=mode)).action == "stop"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("least", "most", "fits", "micro_batches", "chosen"),
    [
        (2, 2, 4, 8, 2),
        (2, 2, 1, 8, None),
        (1, 4, 3, 8, 3),
        (1, 4, 0, 8, None),
        (1, 16, 16, 4, 4),  # the others would have nothing to do
        (3, 3, 3, 2, 3),  # asked for
        (2, 8, 1, 8, None),
    ],
)
def test_how_many_workers(least: int, most: int, fits: int, micro_batches: int, chosen: int | None):
    assert choose_workers(least, most, fits, micro_batches) == chosen


def test_when_to_stop_for_a_deadline():
    assert must_stop(100.0, None, 1.0, 1.0)
    assert not must_stop(100.0, 200.0, 1.0, 1.0)
    assert must_stop(187.0, 200.0, 1.0, 1.0)
    assert must_stop(100.0, 200.0, 5.0, 41.0)
