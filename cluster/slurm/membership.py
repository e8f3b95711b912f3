"""What a task of a SLURM job knows of the job and of its own part in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cluster.slurm.rendezvous import Meeting
from recipes.errors import ClusterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """This node's part in a job of SLURM."""

    job: int
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
