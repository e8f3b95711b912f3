"""Handing runs to a scheduler: the run's folder is made here, the rest happens in the job."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.job import Job, JobKind, Submission
from cluster.schedulers import scheduler
from launcher import jobs, requests, run_names, runs
from launcher.prepare import find_sources
from recipes import resolved
from recipes.errors import ClusterError, RecipeError
from recipes.files import write_whole
from recipes.load import LoadedRecipe, load
from recipes.recipe import Recipe


def dry_run(loaded: LoadedRecipe) -> str:
    """The script that would be submitted."""
    recipe = loaded.recipe
    return scheduler(kind_of(recipe)).show(submission(recipe, free_folder(recipe)))


def free_folder(recipe: Recipe) -> Path:
    """The folder that the next run of a recipe would get."""
    storage = Path(recipe.storage.path)
    names = run_names.numbered(recipe.name)
    return next(storage / own for own in names if not (storage / own).exists())


def submit(loaded: LoadedRecipe) -> tuple[Path, Job]:
    """Submit a new run: its folder and its job. Nothing stays of one that SLURM does not take."""
    recipe = loaded.recipe
    check(recipe)
    run_dir = runs.create(recipe.storage.path, recipe.name, Path(recipe.storage.cache))
    try:
        return run_dir, _submit(loaded, run_dir)
    except BaseException:
        runs.discard(run_dir)
        raise


def check(recipe: Recipe) -> None:
    """Raises a `ShoalError` for what can be known to be wrong with a run before it is handed in."""
    kind_of(recipe)
    runs.check_writable(recipe.storage.path)
    find_sources(recipe.data, Path(recipe.storage.cache))


def submit_again(run_dir: Path, overrides: list[str]) -> Job:
    """Submit a run that was stopped, to go on from its newest checkpoint."""
    loaded = load(run_dir / "recipe.yaml", overrides)
    kind_of(loaded.recipe)
    runs.check_same(run_dir, loaded.recipe)
    state = jobs.state_of(run_dir)
    if state.phase in ("queued", "running"):
        raise ClusterError(
            f"{run_dir}: is {state.phase} already. Stop it first: shoal stop {run_dir.name}"
        )
    return _submit(loaded, run_dir)


def _submit(loaded: LoadedRecipe, run_dir: Path) -> Job:
    recipe = loaded.recipe
    write_recipe(loaded, run_dir)
    job = scheduler(kind_of(recipe)).submit(submission(recipe, run_dir))
    note(run_dir, job)
    return job


def write_recipe(loaded: LoadedRecipe, run_dir: Path) -> None:
    """What a job of this run will read; what was asked of an earlier one is forgotten."""
    requests.forget(run_dir)
    write_whole(run_dir / "recipe.yaml", resolved.to_yaml(loaded))


def note(run_dir: Path, job: Job) -> None:
    """That a run was handed in, as this job."""
    jobs.note(run_dir, job)
    runs.append_event(run_dir, "submitted", {"kind": job.kind, "job": job.id})


def stop_run(run_dir: Path, *, now: bool) -> str:
    """Ask a run to save and stop, or with `now` end its job at once: what was done, in one line.

    Raises `ClusterError` when there is nothing to stop.
    """
    job, state = jobs.job_of(run_dir), jobs.state_of(run_dir)
    name = run_dir.name
    if state.phase in ("ended", "unknown"):
        raise ClusterError(f"{name}: does not run, there is nothing to stop")
    if job is not None and (now or state.phase == "queued"):
        scheduler(job.kind).cancel(job)
        runs.append_event(run_dir, "interrupted", {"error": "ended by shoal stop"})
        return f"{name}: {job.kind} job {job.id} is ended"
    if now:
        raise ClusterError(f"{name}: is no job. Press Ctrl-C twice where it runs")
    requests.ask_to_stop(run_dir)
    return f"{name}: will save and stop after its step. See it with: shoal status {name}"


def kind_of(recipe: Recipe) -> JobKind:
    """The scheduler of a recipe. Raises `RecipeError` when its runs are no jobs."""
    kind = recipe.cluster.kind
    if kind == "local" or kind == "ray":
        raise RecipeError(
            f"cluster.kind = {kind}: has no jobs to submit. Use `shoal run`, or set "
            "cluster.kind=slurm"
        )
    return kind


def submission(recipe: Recipe, run_dir: Path) -> Submission:
    # The command that runs this very installation.
    return Submission(
        recipe=recipe, run_dir=run_dir, shoal=str(Path(sys.executable).parent / "shoal")
    )
