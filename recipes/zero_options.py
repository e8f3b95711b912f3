"""What of the section `zero` can be set together, and with how many workers.

A table of facts about DeepSpeed 0.19; tests/trainer/test_zero_options.py trains what is in it on
CPUs, tests/gpu/test_gpu_zero_options.py on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipes.cluster import Cluster
from recipes.listing import either
from recipes.problem import Problem
from recipes.zero import Zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One key of the section, beside the stage."""

    name: str
    stages: tuple[int, ...]
    why: str
    """Why it means nothing under the others."""
    on_cpus: str
    """What it does where workers compute on CPUs."""
    on_gpus: str


OPTIONS = (
    Option(
        name="offload_optimizer",
        stages=(1, 2, 3),
        why="keeps the optimizer's state beside the model",
        on_cpus="nothing: all is in host memory",
        on_gpus="masters and state of the optimizer lie in host memory, and are stepped there",
    ),
    Option(
        name="offload_parameters",
        stages=(3,),
        why="keeps the base whole on each worker",
        on_cpus="nothing: all is in host memory",
        on_gpus="a worker's part of the base lies in host memory",
    ),
    Option(
        name="hpz_size",
        stages=(3,),
        why="has nothing to gather",
        on_cpus="each node gathers the base among its own workers",
        on_gpus="each node gathers the base among its own workers",
    ),
)


def problems(zero: Zero, cluster: Cluster, workers_per_node: int | None) -> Iterator[Problem]:
    """What cannot be; `workers_per_node` are the most that a node has, if that is known."""
    for option in OPTIONS:
        value = getattr(zero, option.name)
        is_set = value is True or value > 1
        if is_set and zero.stage not in option.stages:
            yield Problem(
                path=f"zero.{option.name}",
                value=value,
                message=f"zero.stage = {zero.stage} {option.why}",
                hint=f"Set zero.stage to {either([str(stage) for stage in option.stages])}",
            )
    if zero.hpz_size > 1 and cluster.workers:
        yield from _hpz_problems(zero.hpz_size, cluster, workers_per_node)


def _hpz_problems(size: int, cluster: Cluster, workers_per_node: int | None) -> Iterator[Problem]:
    if cluster.least_workers != cluster.most_workers:
        yield Problem(
            path="zero.hpz_size",
            value=size,
            message=f"has to divide the workers, and with cluster.workers = {cluster.workers} "
            "their number may be any between",
            hint=f"Set cluster.workers to a multiple of {size}",
        )
        return
    counts = {f"cluster.workers = {cluster.most_workers}": cluster.most_workers}
    if workers_per_node is not None:
        counts[f"the {workers_per_node} workers of a node"] = workers_per_node
    for what, count in counts.items():
        if count % size:
            yield Problem(
                path="zero.hpz_size",
                value=size,
                message=f"does not divide {what}",
                allowed=", ".join(str(n) for n in range(1, count + 1) if count % n == 0),
            )
            return
