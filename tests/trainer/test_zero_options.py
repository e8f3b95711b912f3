"""Options of stage 3: parts of the base in host memory, and a copy of it on each node. They change
where the base lies, and no loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.checkpoint_folder import folder_of
from recipes.base import Base
from recipes.errors import ClusterError
from recipes.recipe import Recipe
from recipes.zero import Zero
from support import jobs
from support.asked import divide_everything
from support.ranks import run_ranks
from trainer.zero_config import check_hpz

Case = tuple[str, str, Zero]
"""Quantisation, dtype and options."""

PLAIN = Zero(stage=3)
OFFLOADED = Zero(stage=3, offload_parameters=True, offload_optimizer=True)
HPZ = Zero(stage=3, hpz_size=2)
ALL = Zero(stage=3, hpz_size=2, offload_parameters=True, offload_optimizer=True)

# By four workers in two groups, all in the same processes: starting them takes most of the time.
CASES: list[Case] = [("none", "float32", zero) for zero in (PLAIN, OFFLOADED, HPZ)]
OTHERS: list[Case] = [
    (quantization, dtype, zero)
    for quantization, dtype in (("none", "bfloat16"), ("nf4", "float32"))
    for zero in (PLAIN, ALL)
]
REST: list[Case] = [
    (*case[:2], zero) for case in OTHERS if case[2] == PLAIN for zero in (PLAIN, OFFLOADED, HPZ)
]


def recipe_of(case: Case) -> Recipe:
    quantization, dtype, zero = case
    return jobs.recipe(base=Base(source="/tiny", dtype=dtype, quantization=quantization), zero=zero)


def train(folders: Path, cases: list[Case]) -> dict[Case, Any]:
    """Each case: its losses, those after going on from step 3, and of the second copies that it has
    of the base's parameters what share a worker holds."""
    from deepspeed.utils import groups

    import trainer.worker as worker

    divide_everything()
    found: dict[Case, Any] = {}
    shares: set[float] = set()
    evaluate = worker._Rank.evaluate

    def look(rank: worker._Rank, when: str, step: int) -> object:
        for parameter in rank.engine.model.parameters():
            if not parameter.requires_grad:
                copy = getattr(parameter, "ds_secondary_tensor", None)
                held = copy.numel() / parameter.ds_numel_aligned if copy is not None else 0.0
                shares.add(held)
        return evaluate(rank, when, step)

    worker._Rank.evaluate = look  # type: ignore[method-assign]
    for number, case in enumerate(cases):
        name = f"zero_options_{case[0]}_{case[1]}_{number}"
        shares.clear()
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None  # of the case before; a rank has one engine
        whole = jobs.train(folders, name, recipe_of(case))
        found[case] = {"losses": whole["losses"], "shares": set(shares)}
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
        step_3 = folder_of(Path(whole["checkpoint"]).parent, 3)
        again = jobs.train(folders, f"{name}_again", recipe_of(case), resume_from=step_3)
        found[case]["again"] = again["losses"]
    worker._Rank.evaluate = evaluate  # type: ignore[method-assign]
    return found


@pytest.fixture(scope="module")
def runs(folders: Path) -> dict[Case, Any]:
    return run_ranks(4, train, folders, CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_learns_the_same_losses_and_goes_on_bit_by_bit(runs: dict, case: Case) -> None:
    check(runs, case)


@pytest.mark.parametrize(
    "cases", [OTHERS, pytest.param(REST, marks=pytest.mark.exhaustive)], ids=["all", "each"]
)
def test_in_bfloat16_and_on_a_quantised_base_too(folders: Path, cases: list[Case]) -> None:
    found = run_ranks(4, train, folders, cases)
    for case in cases:
        check(found, case)


def check(runs: dict[Case, Any], case: Case) -> None:
    plain = runs[*case[:2], PLAIN]["losses"]
    assert plain[-1] < plain[0]
    assert runs[case]["losses"] == pytest.approx(plain, rel=1e-4)
    assert runs[case]["again"] == runs[case]["losses"][3:]


def test_hpz_keeps_half_of_everything_besides(runs: dict) -> None:
    assert runs["none", "float32", HPZ]["shares"] == {0.5}
    assert runs["none", "float32", PLAIN]["shares"] == {0.0}


def test_workers_that_cannot_be_divided_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check_hpz(HPZ, 4)
    with pytest.raises(ClusterError, match=r"zero\.hpz_size = 2: does not divide the 3 workers on"):
        check_hpz(HPZ, 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ClusterError, match=r"the 3 workers on .*, of 6 in all"):
        check_hpz(HPZ, 6)
