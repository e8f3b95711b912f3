"""Where the workers run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    address: str | None = None
    """Address of a running Ray cluster, such as `auto`; left out, Ray starts on this machine."""

    workers: list[int] = field(default_factory=lambda: [1])
    """Training processes, one per GPU; or [fewest, most]. Changes speed, not the result."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What a worker computes on; `auto` is a GPU for each when the cluster has any, else CPUs."""

    cpus_per_worker: int = 1
    """CPU cores kept for each worker; without a GPU also its number of threads."""

    def problems(self) -> Iterator[Problem]:
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

    @property
    def least_workers(self) -> int:
        """With fewer the run waits."""
        return self.workers[0]

    @property
    def most_workers(self) -> int:
        """More are never started."""
        return self.workers[-1]
