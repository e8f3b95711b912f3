"""SLURM as a scheduler of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.job import Job, JobState, Submission
from cluster.slurm import commands
from cluster.slurm.script import log_file, script
from recipes import environment
from recipes.address import is_address
from recipes.files import write_whole

_SCRIPT = "job.sh"


class Slurm:
    """Implements `cluster.schedulers.Scheduler`."""

    def show(self, submission: Submission) -> str:
        return script(submission.recipe, submission.run_dir, shoal=submission.shoal)

    def submit(self, submission: Submission) -> Job:
        file = submission.run_dir / _SCRIPT
        write_whole(file, self.show(submission))
        # SLURM opens it before anything of ours runs.
        log_file(submission.run_dir).parent.mkdir(exist_ok=True)
        recipe = submission.recipe
        kept = environment.values(recipe.cluster.env)
        if is_address(recipe.storage.path):
            kept |= environment.for_storage()
        return Job(kind="slurm", id=commands.submit(file, without=environment.secrets(kept)))

    def states(self, jobs: Sequence[Job]) -> list[JobState]:
        found = commands.states([job.id for job in jobs])
        return [found[job.id] for job in jobs]

    def cancel(self, job: Job) -> None:
        commands.cancel(job.id)

    def log(self, job: Job, run_dir: Path, position: int) -> bytes:
        try:
            with log_file(run_dir).open("rb") as stream:
                stream.seek(position)
                return stream.read()
        except FileNotFoundError:
            return b""
