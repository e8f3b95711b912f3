"""Where the workers run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.environment import is_name
from recipes.problem import Problem

AUTO_ADDRESS = "auto"
"""The Ray cluster that runs on this machine, or that RAY_ADDRESS names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    kind: Literal["local", "ray", "ray_job", "slurm", "kuberay"] = "local"
    """This machine; a Ray cluster, driven from here or by its own job; SLURM; Kubernetes."""

    address: str | None = None
    """Of the Ray cluster, such as `HEAD:6379`, or `http://HEAD:8265` for kind ray_job."""

    workers: list[int] = field(default_factory=lambda: [1])
    """Training processes, one per GPU; or [fewest, most]. Changes speed, not the result."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What a worker computes on; `auto` is a GPU for each when the cluster has any, else CPUs."""

    cpus_per_worker: int = 1
    """CPU cores kept for each worker; without a GPU also its number of threads."""

    form_s: float = 300.0
    """How long the nodes of a job may take until all have joined its Ray cluster (seconds)."""

    interface: str | None = None
    """Network interface for Ray and the workers, such as `ib0`; found out when left out."""

    env: list[str] = field(default_factory=list)
    """Names of the shell's variables that the workers get, such as `HF_TOKEN`; never values."""

    def problems(self) -> Iterator[Problem]:
        for number, name in enumerate(self.env, start=1):
            if not is_name(name):  # what it is may be a secret, and is not shown
                yield Problem(
                    path="cluster.env",
                    message=f"item {number} is no name of a variable",
                    allowed="names such as HF_TOKEN, without a value",
                    hint="Set the value in the shell that starts or submits the run",
                )
        if self.cpus_per_worker < 1:
            yield Problem(
                path="cluster.cpus_per_worker",
                value=self.cpus_per_worker,
                message="is too few",
                allowed="≥ 1",
            )
        if not (1 <= len(self.workers) <= 2 and 1 <= self.workers[0] <= self.workers[-1]):
            yield Problem(
                path="cluster.workers",
                value=list(self.workers),
                message="is no number of workers",
                allowed="a number ≥ 1, or the fewest and the most",
            )
        if self.form_s < 1:
            yield Problem(
                path="cluster.form_s", value=self.form_s, message="is too short", allowed="≥ 1"
            )
        if self.address is not None and self.kind not in ("ray", "ray_job"):
            yield Problem(
                path="cluster.address",
                value=self.address,
                message=f"means nothing to cluster.kind = {self.kind}",
                hint="Set cluster.kind: ray or ray_job, or leave the address out "
                "(cluster.address=null takes it back)",
            )
        if self.kind == "ray_job" and self.address and "://" not in self.address:
            yield Problem(
                path="cluster.address",
                value=self.address,
                message="is no address of a Jobs API",
                allowed="that of the cluster's dashboard, such as http://HEAD:8265",
            )

    @property
    def least_workers(self) -> int:
        """With fewer the run waits."""
        return self.workers[0]

    @property
    def most_workers(self) -> int:
        """More are never started."""
        return self.workers[-1]
