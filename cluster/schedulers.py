"""What takes runs as jobs, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cluster.job import Job, JobKind, JobState, Submission, Sweep
from cluster.ray_jobs.scheduler import RayJobs
from cluster.slurm.scheduler import Slurm


class Scheduler(Protocol):
    """Takes runs as jobs. Every method raises `ClusterError` when the scheduler refuses, or cannot
    be reached."""

    def show(self, submission: Submission) -> str:
        """What `submit` would hand in, for a person to read."""

    def submit(self, submission: Submission) -> Job:
        """Hand a run in."""

    def show_sweep(self, sweep: Sweep) -> str:
        """What `submit_sweep` would hand in, for a person to read."""

    def submit_sweep(self, sweep: Sweep) -> list[Job]:
        """Hand several runs in together: their jobs, in the same order.

        Raises `RecipeError`, as `show_sweep` does, when this scheduler cannot take them together.
        """

    def states(self, jobs: Sequence[Job]) -> list[JobState]:
        """How jobs of the same address are now, asked for at once. One that the scheduler does not
        know any more has ended."""

    def cancel(self, job: Job) -> None:
        """End a job that waits, or end it as fast as the scheduler does."""

    def log(self, job: Job, run_dir: Path, position: int) -> bytes:
        """What a run's job has printed so far, from a position on."""


_SCHEDULERS: dict[JobKind, type[Scheduler]] = {"slurm": Slurm, "ray_job": RayJobs}


def scheduler(kind: JobKind) -> Scheduler:
    return _SCHEDULERS[kind]()
