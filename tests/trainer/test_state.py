"""Optimizer state out of one engine and into another: any stage, any number of workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes.zero import Zero
from support import jobs
from support.ranks import run_ranks

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


def _tensors(checkpoint: str, equal_to: str) -> bool:
    for file in ("adapter/adapter_model.safetensors", "trainer_state/state.safetensors"):
        left, right = load_file(Path(checkpoint) / file), load_file(Path(equal_to) / file)
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name
    return True
