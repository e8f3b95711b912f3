"""What a task of a SLURM job knows of the job and of its own part in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.slurm.rendezvous import Meeting
from recipes.errors import ClusterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """This node's part in a job of SLURM."""

    job: int
    """Number of the job, or of this task of a job array: each has its own."""
    id: str
    """As SLURM's commands take it. The number of an array's last task is also the array's own, so
    by it all tasks would be meant."""
    restarts: int
    nodes: tuple[str, ...]
    """All of the job, the first first."""
    index: int
    num_cpus: int
    token: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> Membership:
        """Raises `ClusterError` outside a task of a job that `shoal submit` has submitted."""
        try:
            return cls(
                job=int(os.environ["SLURM_JOB_ID"]),
                id=_id(os.environ),
                restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
                nodes=tuple(os.environ["SHOAL_NODES"].split()),
                index=int(os.environ["SLURM_PROCID"]),
                num_cpus=int(os.environ["SLURM_CPUS_ON_NODE"]),
                token=os.environ["RAY_AUTH_TOKEN"],
            )
        except (KeyError, ValueError) as error:
            raise ClusterError(
                f"shoal node: {error} tells that this is no task of a job of `shoal submit`"
            ) from error

    @property
    def node(self) -> str:
        """This node's name."""
        return self.nodes[self.index]

    def meeting(self) -> Meeting:
        return Meeting(job=self.job, host=self.nodes[0], token=self.token.encode())


def _id(environment: Mapping[str, str]) -> str:
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]
