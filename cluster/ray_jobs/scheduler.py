"""A Ray cluster as a scheduler of runs."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.job import Job, JobState, Phase, Submission, Sweep
from cluster.ray_jobs import client
from cluster.ray_jobs.ticket import Ticket
from recipes.environment import values
from recipes.errors import RecipeError
from recipes.readable_yaml import to_yaml

_NO_SWEEPS = (
    "--sweep: Ray has no job arrays: all runs would begin at once and wait for each other's "
    "workers. Submit them one after the other, or use cluster.kind=slurm"
)
RUN = "job"
"""The command of shoal's that drives the run of a ticket."""

_PHASES: dict[str, Phase] = {"PENDING": "queued", "RUNNING": "running"}


class RayJobs:
    """Implements `cluster.schedulers.Scheduler`."""

    def show(self, submission: Submission) -> str:
        told = {
            "address": submission.recipe.cluster.address,
            "entrypoint": entrypoint(submission, [RUN]),
            "working_dir": submission.recipe.ray_job.code,
            "env_vars": environment(submission),
            "variables of this shell": list(submission.recipe.cluster.env),
        }
        return to_yaml(told)

    def submit(self, submission: Submission) -> Job:
        return self.hand_in(submission, [RUN])

    def hand_in(self, submission: Submission, command: Sequence[str]) -> Job:
        """Hand in a job that gives a command of shoal's with the submission's ticket."""
        code = submission.recipe.ray_job.code
        job = f"{submission.run_dir.name}-{uuid.uuid4().hex[:8]}"
        address = client.submit(
            submission.recipe.cluster.address,
            entrypoint=entrypoint(submission, command),
            job=job,
            # Ray shows a job's variables to all who may use its dashboard: docs/nodes.md says so.
            environment=environment(submission) | values(submission.recipe.cluster.env),
            code=Path(code) if code is not None else None,
        )
        return Job(kind="ray_job", id=job, address=address)

    def states(self, jobs: Sequence[Job]) -> list[JobState]:
        details = client.details(jobs[0].address, [job.id for job in jobs])
        return [_state(job, details.get(job.id)) for job in jobs]

    def show_sweep(self, sweep: Sweep) -> str:
        raise RecipeError(_NO_SWEEPS)

    def submit_sweep(self, sweep: Sweep) -> list[Job]:
        raise RecipeError(_NO_SWEEPS)

    def cancel(self, job: Job) -> None:
        client.stop(job.address, job.id)

    def log(self, job: Job, run_dir: Path, position: int) -> bytes:
        # The API hands out a whole log or none.
        return client.logs(job.address, job.id).encode()[position:]


def _state(job: Job, details: Any | None) -> JobState:
    if details is None:
        return JobState(phase="ended", why=f"{job.address} has forgotten it")
    word = str(details.status.value)
    return JobState(
        phase=_PHASES.get(word, "ended"),
        word=word,
        why=_last_line(details.message) if word == "FAILED" else "",
        exit_status=details.driver_exit_code,
    )


def entrypoint(submission: Submission, command: Sequence[str]) -> str:
    """The job's command. As a module, so that code sent along is found before installed code."""
    python = shlex.quote(submission.recipe.ray_job.python)
    return f"exec {python} -m launcher {shlex.join(command)}"


def environment(submission: Submission) -> dict[str, str]:
    ticket = Ticket(
        run=submission.run_dir.name,
        key=submission.key,
        version=submission.version,
        parent=submission.parent or "",
        recipe=submission.resolved,
    )
    return ticket.to_environment() | {
        # Ray sends SIGTERM and SIGKILL three seconds later, which is no time to save anything.
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(submission.recipe.ray_job.stop_s),
    }


def _last_line(message: str | None) -> str:
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""
