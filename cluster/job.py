"""A run as a scheduler's job: what is handed in, how it is known afterwards, how it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recipes.recipe import Recipe

JobKind = Literal["slurm"]
Phase = Literal["queued", "running", "ended", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a scheduler is handed."""

    recipe: Recipe
    run_dir: Path
    shoal: str
    """The command on the nodes, where the recipe does not name another."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What a scheduler says of a job."""

    phase: Phase
    word: str = ""
    """The scheduler's own word, such as PENDING."""
    why: str = ""
    """Its reason, such as Resources."""
    nodes: str = ""
