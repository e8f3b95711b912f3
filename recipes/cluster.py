"""Where the workers run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    address: str | None = None
    """Address of a running Ray cluster, such as `auto`; left out, Ray starts on this machine."""

    workers: int = 1
    """Training processes, one per GPU; changes speed and memory, not the result."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What a worker computes on; `auto` is a GPU for each when the cluster has any, else CPUs."""

    cpus_per_worker: int = 1
    """CPU cores kept for each worker; without a GPU also its number of threads."""

    def problems(self) -> Iterator[Problem]:
        for name in ("workers", "cpus_per_worker"):
            value = getattr(self, name)
            if value < 1:
                yield Problem(
                    path=f"cluster.{name}", value=value, message="is too few", allowed="≥ 1"
                )
