"""Whether this process is a part of a job, or the one that hands it in. Imports nothing heavy."""

from __future__ import annotations

import os

from cluster.ray_jobs.ticket import has_ticket
from recipes.recipe import Recipe


def is_inside() -> bool:
    """Whether this process belongs to a job that `shoal submit` has submitted."""
    return has_ticket() or ("SHOAL_NODES" in os.environ and "SLURM_PROCID" in os.environ)


def is_submitted(recipe: Recipe) -> bool:
    """Whether a recipe's runs are driven by a job, not by the process that is asked for them."""
    return recipe.cluster.kind not in ("local", "ray") and not is_inside()


def job_nodes() -> list[str]:
    """The nodes of the SLURM job that this process is a task of, by SLURM's names, else none."""
    return os.environ.get("SHOAL_NODES", "").split() if "SLURM_PROCID" in os.environ else []
