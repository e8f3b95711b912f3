"""A run as a scheduler's job: what is handed in, how it is known afterwards, how it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recipes.recipe import Recipe

JobKind = Literal["slurm", "ray_job"]
Phase = Literal["queued", "running", "ended", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a scheduler is handed."""

    recipe: Recipe
    resolved: str
    """The recipe as YAML."""
    run_dir: Path
    """Where the run is kept track of here; its own folder, unless only the cluster sees that."""
    parent: str | None
    """Address or folder of the run from whose checkpoint it begins, if it does."""
    key: str
    """Tells the run from all others, whatever their names are."""
    shoal: str
    """The command here, which is also that of the nodes where the recipe does not name another."""
    version: str
    """Of shoal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Runs that are handed in together."""

    submissions: tuple[Submission, ...]
    folder: Path
    """For what belongs to none of the runs alone."""
    at_most: int | None
    """How many may run at the same time; None when all may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job that runs a run, or ran it last."""

    kind: JobKind
    id: str
    """As the scheduler's commands take it; of a run of a sweep in SLURM, such as 4711_2."""
    address: str = ""
    """Whom to ask for it, where there may be several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What a scheduler says of a job."""

    phase: Phase
    word: str = ""
    """The scheduler's own word, such as PENDING."""
    why: str = ""
    """Its reason, such as Resources."""
    nodes: str = ""
    exit_status: int | None = None
    """Of what the job has run, where the scheduler tells."""
