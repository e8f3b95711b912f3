"""SLURM as a scheduler of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cluster.job import Job, JobState, Submission, Sweep
from cluster.slurm import commands
from cluster.slurm.script import log_file, script, sweep_script
from recipes import environment, resolved
from recipes.address import is_address
from recipes.errors import RecipeError
from recipes.files import write_whole
from recipes.recipe import Recipe

_SCRIPT = "job.sh"


def hand_in(text: str, folder: Path, recipe: Recipe) -> Job:
    """Hand in a script for a recipe, whose job has this folder. Raises `ClusterError` when it is
    not taken."""
    file = folder / _SCRIPT
    write_whole(file, text)
    # SLURM opens it before anything of ours runs.
    log_file(folder).parent.mkdir(exist_ok=True)
    return Job(kind="slurm", id=commands.submit(file, without=_secrets([recipe])))


class Slurm:
    """Implements `cluster.schedulers.Scheduler`."""

    def show(self, submission: Submission) -> str:
        return script(submission.recipe, submission.run_dir, shoal=submission.shoal)

    def submit(self, submission: Submission) -> Job:
        return hand_in(self.show(submission), submission.run_dir, submission.recipe)

    def show_sweep(self, sweep: Sweep) -> str:
        _check_alike(sweep)
        return sweep_script(sweep, sweep.folder.name)

    def submit_sweep(self, sweep: Sweep) -> list[Job]:
        file = sweep.folder / _SCRIPT
        write_whole(file, self.show_sweep(sweep))
        for number, submission in enumerate(sweep.submissions):
            log_file(submission.run_dir).parent.mkdir(exist_ok=True)
            # By its number each task of the array finds its run, and SLURM the run's log.
            (sweep.folder / str(number)).symlink_to(submission.run_dir)
        array = commands.submit(file, without=_secrets([one.recipe for one in sweep.submissions]))
        return [Job(kind="slurm", id=f"{array}_{n}") for n in range(len(sweep.submissions))]

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


def _secrets(recipes: Sequence[Recipe]) -> list[str]:
    """Names of the secret variables of this shell that none of the recipes has named."""
    kept: dict[str, str] = {}
    for recipe in recipes:
        kept |= environment.values(recipe.cluster.env)
        if is_address(recipe.storage.path):
            kept |= environment.for_storage()
    return environment.secrets(kept)


def _check_alike(sweep: Sweep) -> None:
    """Raises `RecipeError` when two runs ask something else of SLURM."""
    first = sweep.submissions[0]

    def asked(submission: Submission) -> str:
        recipe = dataclasses.replace(submission.recipe, name=first.recipe.name)
        return script(recipe, first.run_dir, shoal=first.shoal)

    for other in sweep.submissions[1:]:
        if asked(other) != asked(first):
            changed = resolved.differences(first.recipe, other.recipe)
            keys = [key for key in changed if key.startswith(("slurm.", "cluster."))]
            raise RecipeError(
                f"--sweep: {', '.join(keys)} would change from run to run. A sweep is one job "
                "array of SLURM, whose tasks all get the same; submit a sweep for each value"
            )
