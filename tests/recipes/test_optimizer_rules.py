"""Which optimizer goes with which ZeRO stage."""

from __future__ import annotations

import dataclasses

import pytest

from recipes import resolved
from recipes.base import Base
from recipes.data import Data, Source
from recipes.recipe import Recipe, all_problems
from recipes.train import Train
from recipes.zero import Zero


def recipe(train: dict | None = None, **zero: object) -> Recipe:
    return Recipe(
        name="mine",
        base=Base(source="org/model"),
        data=Data(train=[Source(path="rows.jsonl")]),
        train=Train(steps=5, **(train or {})),
        zero=Zero(**zero),
    )


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "adafactor", "muon"])
def test_whole_matrices_need_stage_0(optimizer: str, stage: int):
    found = [str(p) for p in all_problems(recipe({"optimizer": optimizer}, stage=stage))]
    if optimizer in ("adafactor", "muon") and stage:
        assert found == [
            f"train.optimizer = '{optimizer}': needs whole matrices, and zero.stage = {stage} "
            "hands each worker a flat part of them. Set zero.stage: 0, or train.optimizer: adamw"
        ]
    else:
        assert found == []


def test_host_memory_needs_a_stage_that_shards():
    for stage in (1, 2, 3):
        assert all_problems(recipe(stage=stage, offload_optimizer=True)) == []
    assert [str(p) for p in all_problems(recipe(offload_optimizer=True))] == [
        "zero.offload_optimizer = True: zero.stage = 0 keeps the optimizer's state beside the "
        "model. Set zero.stage to 1, 2 or 3"
    ]
    eight_bit = recipe({"optimizer": "adamw_8bit"}, stage=2, offload_optimizer=True)
    assert [problem.path for problem in all_problems(eight_bit)] == ["zero.offload_optimizer"]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            {"loraplus_ratio": 0.0},
            "train.loraplus_ratio = 0.0: is too small; allowed: > 0, or null",
        ),
        (
            {"optimizer": "adafactor", "betas": [0.8, 0.9]},
            "train.betas = [0.8, 0.9]: train.optimizer = adafactor has none. Leave train.betas out",
        ),
        (
            {"optimizer": "adafactor", "eps": 1e-6},
            "train.eps = 1e-06: train.optimizer = adafactor has none. Leave train.eps out",
        ),
    ],
)
def test_values_without_effect_are_told(train: dict, said: str):
    assert [str(problem) for problem in all_problems(recipe(train))] == [said]


def test_what_is_learnt_depends_on_the_optimizer_and_not_on_where_its_state_lies():
    plain = resolved.digest(recipe(stage=1))
    assert resolved.digest(recipe(stage=1, offload_optimizer=True)) == plain
    for train in ({"optimizer": "muon"}, {"loraplus_ratio": 4.0}):
        changed = dataclasses.replace(recipe(train), zero=Zero(stage=1))
        assert resolved.digest(changed) != plain
