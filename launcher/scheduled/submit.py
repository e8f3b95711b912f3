"""Handing runs to a scheduler: the run's folder is made here, the rest happens in the job."""

from __future__ import annotations

import uuid
from importlib.metadata import version
from pathlib import Path

from adapters.mirror import open_mirror
from cluster.job import Job, JobKind, Submission
from cluster.kuberay import manifest
from cluster.schedulers import scheduler
from launcher.install import own_command
from launcher.prepare.sources.source import find_sources
from launcher.records import jobs, requests, run_names, runs
from recipes import environment, resolved
from recipes.errors import ClusterError, RecipeError
from recipes.files import write_whole
from recipes.load import DEFAULT, LoadedRecipe, load
from recipes.recipe import Recipe


def dry_run(loaded: LoadedRecipe) -> str:
    """What would be submitted: a script, or a job, as its scheduler takes it."""
    recipe = loaded.recipe
    ready = submission(loaded, free_folder(recipe))
    if recipe.cluster.kind == "kuberay":
        return manifest(ready)
    return scheduler(kind_of(recipe)).show(ready)


def free_folder(recipe: Recipe) -> Path:
    """The folder that the next run of a recipe would get."""
    storage = Path(recipe.storage.path)
    names = run_names.numbered(recipe.name)
    return next(storage / own for own in names if not (storage / own).exists())


def submit(loaded: LoadedRecipe) -> tuple[Path, Job]:
    """Submit a new run: its folder and its job. Nothing stays of one that SLURM does not take."""
    return _submit_new(loaded, parent=None)


def _submit_new(loaded: LoadedRecipe, parent: Path | None) -> tuple[Path, Job]:
    recipe = loaded.recipe
    check(recipe)
    run_dir = runs.create(recipe.storage.path, recipe.name, Path(recipe.storage.cache))
    try:
        if parent is not None:
            runs.note_parent(run_dir, runs.name_of(parent))
        return run_dir, _submit(loaded, run_dir)
    except BaseException:
        runs.discard(run_dir)
        raise


def submit_fork(parent: Path, overrides: list[str]) -> tuple[Path, Job]:
    """Submit a new run that begins from another one's newest checkpoint, whatever is changed."""
    return _submit_new(load(parent / "recipe.yaml", overrides), parent)


def check(recipe: Recipe) -> None:
    """Raises a `ShoalError` for what can be known to be wrong with a run before it is handed in."""
    environment.values(recipe.cluster.env)
    if kind_of(recipe) == "slurm":  # other clusters' files are not seen from here
        find_sources(recipe.data, Path(recipe.storage.cache))
    runs.check_writable(recipe.storage.path)


def submit_again(run_dir: Path, overrides: list[str]) -> Job:
    """Submit a run that was stopped, to go on from its newest checkpoint."""
    loaded = load(run_dir / "recipe.yaml", overrides)
    kind_of(loaded.recipe)
    environment.values(loaded.recipe.cluster.env)
    runs.check_same(run_dir, loaded.recipe)
    state = jobs.state_of(run_dir)
    if state.phase in ("queued", "running"):
        raise ClusterError(
            f"{run_dir}: is {state.phase} already. Stop it first: shoal stop {runs.called(run_dir)}"
        )
    return _submit(loaded, run_dir)


def _submit(loaded: LoadedRecipe, run_dir: Path) -> Job:
    make_ready(loaded, run_dir)
    try:
        job = scheduler(kind_of(loaded.recipe)).submit(submission(loaded, run_dir))
    except ClusterError as error:
        runs.append_event(run_dir, "failed", {"error": str(error)})
        raise
    note(run_dir, job)
    return job


def make_ready(loaded: LoadedRecipe, run_dir: Path) -> None:
    """What a job of this run will read, and that it was handed in: a job may begin before it is
    known here. What was asked of an earlier one is forgotten."""
    requests.forget(run_dir)
    write_whole(run_dir / "recipe.yaml", resolved.to_yaml(loaded))
    runs.append_event(run_dir, "submitted", {"kind": loaded.recipe.cluster.kind})


def note(run_dir: Path, job: Job) -> None:
    """That a run was handed in, as this job."""
    jobs.note(run_dir, job)
    open_mirror(run_dir).push("recipe.yaml", "events.jsonl", jobs.FILE, runs.PARENT)


def stop_run(run_dir: Path, *, now: bool) -> str:
    """Ask a run to save and stop, or with `now` end its job at once: what was done, in one line.

    Raises `ClusterError` when there is nothing to stop.
    """
    job, state = jobs.job_of(run_dir), jobs.state_of(run_dir)
    name, called = run_dir.name, runs.called(run_dir)
    if state.phase == "unknown":
        raise ClusterError(f"{name}: {state.why}")
    if state.phase == "ended":
        raise ClusterError(f"{name}: does not run, there is nothing to stop")
    if job is not None and job.kind == "ray_job":
        # The driver may have a folder that is not seen from here; Ray's signal reaches it.
        scheduler(job.kind).cancel(job)
        return (
            f"{name}: will save and stop after its step; Ray kills it if that takes longer than "
            f"ray_job.stop_s. See it with: shoal status {called}"
        )
    if job is not None and (now or state.phase == "queued"):
        scheduler(job.kind).cancel(job)
        runs.append_event(run_dir, "interrupted", {"error": "ended by shoal stop"})
        return f"{name}: {job.kind} job {job.id} is ended"
    if now:
        raise ClusterError(f"{name}: is no job. Press Ctrl-C twice where it runs")
    requests.ask_to_stop(run_dir)
    return f"{name}: will save and stop after its step. See it with: shoal status {called}"


def kind_of(recipe: Recipe) -> JobKind:
    """The scheduler of a recipe. Raises `RecipeError` when its runs are no jobs."""
    kind = recipe.cluster.kind
    if kind == "kuberay":
        raise RecipeError(
            "cluster.kind = kuberay: shoal writes the job, and kubectl hands it in: "
            "shoal submit RECIPE --dry-run | kubectl apply -f -"
        )
    if kind == "local" or kind == "ray":
        raise RecipeError(
            f"cluster.kind = {kind}: has no jobs to submit. Use `shoal run`, or set "
            "cluster.kind=slurm"
        )
    return kind


def submission(loaded: LoadedRecipe, run_dir: Path) -> Submission:
    """What a scheduler gets for a run; one whose folder is not there yet is only to be shown."""
    # A cache that nobody has named is the cluster's own.
    unnamed = ["storage.cache"] if loaded.origins["storage.cache"] == DEFAULT else []
    return Submission(
        recipe=loaded.recipe,
        resolved=resolved.to_yaml(loaded, without=unnamed),
        run_dir=run_dir,
        parent=runs.parent_of(run_dir),
        key=jobs.key_of(run_dir) if run_dir.is_dir() else uuid.uuid4().hex,
        shoal=own_command(),
        version=version("shoal"),
    )
