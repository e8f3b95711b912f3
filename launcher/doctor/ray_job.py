"""The doctor as a job of a Ray cluster: its nodes are looked at from inside. This machine need not
see their storage, so the report comes back by what the job prints."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import typer

from cluster.process import last_lines
from cluster.ray_jobs.scheduler import RayJobs
from launcher.doctor.report import Report, from_json, to_json
from launcher.doctor.waiting import wait_for_end
from launcher.scheduled.job_entry import own_ticket
from launcher.scheduled.submit import submission
from launcher.terminal import Display
from recipes import environment
from recipes.errors import ClusterError
from recipes.load import LoadedRecipe

COMMAND = "doctor-job"
NO_NETWORK = "--no-network"
_MARK = "shoal-report: "


def examine_in_ray_job(loaded: LoadedRecipe, display: Display, *, measure_network: bool) -> Report:
    """Hand in a job, wait for it, and return its report; interrupted, it is stopped.

    Raises `ClusterError` when it is not taken, and when it ends without a report.
    """
    environment.values(loaded.recipe.cluster.env)
    ready = submission(loaded, Path(f"{loaded.recipe.name}-doctor"))
    job = RayJobs().hand_in(ready, [COMMAND, *([] if measure_network else [NO_NETWORK])])
    try:
        wait_for_end(job, display)
    except BaseException:
        with suppress(ClusterError):
            RayJobs().cancel(job)
        raise
    said = RayJobs().log(job, ready.run_dir, 0).decode(errors="replace")
    for line in said.splitlines():
        if line.startswith(_MARK):
            return from_json(line.removeprefix(_MARK))
    raise ClusterError(
        f"ray_job job {job.id} ended without a report; the last it printed: "
        f"{last_lines(said) or 'nothing'}"
    )


def print_report(display: Display, *, measure_network: bool) -> int:
    """The job's part: the exit status."""
    from launcher.doctor.examine import examine

    recipe = own_ticket()[1].recipe
    report = examine(recipe, display, measure_network=measure_network)
    typer.echo(_MARK + to_json(report, recipe, indent=None))
    return report.status
