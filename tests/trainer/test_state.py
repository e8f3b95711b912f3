"""Optimizer state out of one engine and into another: any stage, any number of workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes.recipe import Recipe
from recipes.zero import Zero
from support import jobs
from support.ranks import run_ranks
from trainer.ledger import read_ledger
from trainer.reporter import SilentReporter

STAGES = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def whole(folders: Path) -> dict:
    """Runs of 6 steps on two workers that were never interrupted; they saved at step 3."""
    return run_ranks(2, jobs.train_stages, folders, "whole", STAGES)


def _resume(folders: Path, label: str, pairs: list[tuple[int, int]], from_runs: dict) -> dict:
    """For each (old stage, new stage), the last three steps of the old run on the new stage."""
    return {
        (old, new): jobs.train(
            folders,
            f"{label}_{old}_{new}",
            dataclasses.replace(jobs.recipe(), zero=Zero(stage=new)),
            resume_from=Path(from_runs[old]["checkpoint"]).parent / "step_000003",
        )
        for old, new in pairs
    }


def test_the_same_workers_go_on_bit_by_bit(folders: Path, whole: dict):
    found = run_ranks(2, _resume, folders, "same", [(s, s) for s in STAGES], whole)
    for stage in STAGES:
        again = found[stage, stage]
        assert [line["step"] for line in again["lines"]] == [4, 5, 6]
        assert again["losses"] == whole[stage]["losses"][3:]
        assert _tensors(again["checkpoint"], equal_to=whole[stage]["checkpoint"])


def test_another_stage_and_worker_count_go_on(folders: Path, whole: dict):
    pairs = [(0, 3), (3, 0), (3, 2), (2, 3), (1, 0)]
    for workers in (1, 3):
        found = run_ranks(workers, _resume, folders, f"other{workers}", pairs, whole)
        for (old, _), again in found.items():
            assert again["losses"] == pytest.approx(whole[old]["losses"][3:], rel=1e-4)


def _start(folders: Path, workers: int) -> dict:
    return {3: jobs.train(folders, f"from{workers}", _of_stage(3))}


def _of_stage(stage: int) -> Recipe:
    return dataclasses.replace(jobs.recipe(), zero=Zero(stage=stage))


@pytest.mark.parametrize(("before", "after"), [(3, 2), (4, 2)])
def test_fewer_workers_go_on(folders: Path, whole: dict, before: int, after: int):
    """From 2 to 1 and 2 to 3 is shown above."""
    old = run_ranks(before, _start, folders, before)
    assert old[3]["losses"] == pytest.approx(whole[3]["losses"], rel=1e-4)
    found = run_ranks(after, _resume, folders, f"from{before}to{after}", [(3, 3), (3, 0)], old)
    for again in found.values():
        assert again["losses"] == pytest.approx(old[3]["losses"][3:], rel=1e-4)
        assert [line["step"] for line in again["lines"]] == [4, 5, 6]


def _change_stages(folders: Path) -> list[dict]:
    """Two steps under stage 3, two under 2, one under 0, one under 3: one run."""
    found = []
    checkpoint = None
    for last, stage in ((2, 3), (4, 2), (5, 0), (6, 3)):
        done = jobs.train(
            folders,
            "stages",
            _of_stage(stage),
            resume_from=checkpoint,
            reporter=StopAfter(last, done=len(found) and found[-1]["steps"]),
        )
        checkpoint = Path(done["checkpoint"])
        found.append(done)
    return found


class StopAfter(SilentReporter):
    """Wishes to stop after step `last`, when `done` are done already."""

    def __init__(self, last: int, done: int) -> None:
        self._last = last
        self._asked = done

    def stop_requested(self) -> bool:
        self._asked += 1
        return self._asked == self._last


def test_the_stage_changes_three_times_within_a_run(folders: Path, whole: dict):
    found = run_ranks(2, _change_stages, folders)
    assert [done["steps"] for done in found] == [2, 4, 5, 6]
    assert found[-1]["losses"] == pytest.approx(whole[0]["losses"], rel=1e-4)
    account = read_ledger(folders / "stages" / "ledger")
    assert account.attempts == 4
    assert account.redone == 0
    assert [*account.entries] == [*read_ledger(folders / "whole_zero0" / "ledger").entries]


def _tensors(checkpoint: str, equal_to: str) -> bool:
    for file in ("adapter/adapter_model.safetensors", "trainer_state/state.safetensors"):
        left, right = load_file(Path(checkpoint) / file), load_file(Path(equal_to) / file)
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name
    return True
