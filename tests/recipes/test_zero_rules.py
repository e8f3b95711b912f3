"""What `shoal check` says of options of the section `zero`."""

from __future__ import annotations

import dataclasses

import pytest

from recipes.cluster import Cluster
from recipes.recipe import all_problems
from recipes.slurm import Slurm
from recipes.zero import Zero
from recipes.zero_options import OPTIONS
from support import jobs


def told(zero: Zero, workers: list[int] | None = None, slurm: Slurm | None = None) -> list[str]:
    cluster = Cluster(workers=workers or [4], kind="slurm" if slurm else "local")
    found = jobs.recipe(zero=zero, cluster=cluster, slurm=slurm or Slurm())
    train = dataclasses.replace(found.train, global_batch_size=24)
    return [str(problem) for problem in all_problems(dataclasses.replace(found, train=train))]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_stage_that_gives_it_no_meaning(option):
    value = 2 if option.name == "hpz_size" else True
    for stage in range(4):
        found = told(Zero(stage=stage, **{option.name: value}))
        if stage in option.stages:
            assert found == []
        else:
            [problem] = found
            assert problem.startswith(f"zero.{option.name} = {value}: zero.stage = {stage} ")
            assert problem.endswith(f" {option.stages[-1]}")


def test_hpz_has_to_divide_the_workers():
    assert told(Zero(stage=3, hpz_size=3), [4]) == [
        "zero.hpz_size = 3: does not divide cluster.workers = 4; allowed: 1, 2, 4"
    ]
    [elastic] = told(Zero(stage=3, hpz_size=2), [2, 4])
    assert "their number may be any between. Set cluster.workers to a multiple of 2" in elastic
    assert told(Zero(stage=3, hpz_size=1), [2, 4]) == []
    nodes = Slurm(nodes=2, gpus_per_node=6)
    assert told(Zero(stage=3, hpz_size=4), [12], nodes) == [
        "zero.hpz_size = 4: does not divide the 6 workers of a node; allowed: 1, 2, 3, 6"
    ]
    assert told(Zero(stage=3, hpz_size=3), [12], nodes) == []
    assert told(Zero(stage=3, hpz_size=0)) == [
        "zero.hpz_size = 0: is no number of workers; allowed: 1, or a divisor of the workers of a "
        "node"
    ]
