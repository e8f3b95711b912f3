"""The doctor as a job of SLURM: the nodes that a run would get are looked at from inside."""

from __future__ import annotations

import dataclasses
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from cluster.job import Job, JobState
from cluster.process import last_lines
from cluster.slurm.scheduler import Slurm, hand_in
from cluster.slurm.script import doctor_script
from launcher.doctor.report import Report, from_json, to_json
from launcher.doctor.waiting import wait_for_end
from launcher.install import own_command
from launcher.records import runs
from launcher.terminal import Display
from recipes import resolved
from recipes.address import is_address
from recipes.errors import ClusterError, ShoalError, StorageError
from recipes.files import write_whole
from recipes.load import LoadedRecipe, load
from recipes.recipe import Recipe

COMMAND = "doctor-node"
NO_NETWORK = "--no-network"

_REPORT = "report.json"
# What a job wrote last may reach this machine later than its end, on a network file system.
_SETTLE_S = 10.0
_ASK_AGAIN_S = 0.5


def examine_in_job(loaded: LoadedRecipe, display: Display, *, measure_network: bool) -> Report:
    """Hand in a job with the recipe's options, wait for it, and return its report.

    The job is cancelled when this is interrupted. Raises `ClusterError` when it is not taken, and
    when it ends without a report: its log then stays.
    """
    folder = _folder(loaded.recipe)
    write_whole(folder / "recipe.yaml", resolved.to_yaml(loaded))
    options = [] if measure_network else [NO_NETWORK]
    try:
        nodes_run = [COMMAND, *options]
        job = hand_in(
            doctor_script(_small(loaded.recipe), folder, shoal=own_command(), nodes_run=nodes_run),
            folder,
            loaded.recipe,
        )
    except ShoalError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        state = wait_for_end(job, display)
    except BaseException:
        with suppress(ClusterError):
            Slurm().cancel(job)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    report = _report(folder)
    if report is None:
        raise ClusterError(_why_none(folder, job, state))
    shutil.rmtree(folder, ignore_errors=True)
    return report


def write_report(folder: Path, display: Display, *, measure_network: bool) -> int:
    """The part of the job's first node: the exit status."""
    from launcher.doctor.examine import examine

    recipe = load(folder / "recipe.yaml").recipe
    report = examine(recipe, display, measure_network=measure_network)
    write_whole(folder / _REPORT, to_json(report, recipe))
    return report.status


def _folder(recipe: Recipe) -> Path:
    """A folder of the job's own, two below the runs, among which it is not counted."""
    kept = recipe.storage.cache if is_address(recipe.storage.path) else recipe.storage.path
    folder = Path(kept) / ".doctor" / uuid.uuid4().hex[:12]
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror or error}") from error
    return folder


def _small(recipe: Recipe) -> Recipe:
    """The recipe's job, as one that goes on without a node, and is never queued again."""
    return dataclasses.replace(
        recipe,
        cluster=dataclasses.replace(recipe.cluster, workers=[1, recipe.cluster.most_workers]),
        slurm=dataclasses.replace(recipe.slurm, max_requeues=0),
    )


def _report(folder: Path) -> Report | None:
    end = time.monotonic() + _SETTLE_S
    while True:
        with suppress(FileNotFoundError):
            return from_json((folder / _REPORT).read_text(encoding="utf-8"))
        if time.monotonic() > end:
            return None
        time.sleep(_ASK_AGAIN_S)


def _why_none(folder: Path, job: Job, state: JobState) -> str:
    said = [event["error"] for event in runs.read_events(folder) if "error" in event]
    log = last_lines(Slurm().log(job, folder, 0).decode(errors="replace"))
    why = said[-1] if said else f"the last it printed: {log or 'nothing'}"
    return (
        f"slurm job {job.id} ended without a report ({state.word}): {why}. What it printed is in "
        f"{folder}/logs; if there is nothing, the nodes may not see that folder"
    )
