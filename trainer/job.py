"""What a rank is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapters.base_ref import BaseRef
from recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The same value on every rank. All paths are absolute and seen by every node."""

    recipe: Recipe
    run_dir: Path
    prepared: Path
    base_folder: Path
    base: BaseRef
    action: Literal["train", "evaluate"] = "train"
    resume_from: Path | None = None
    """Checkpoint to go on from, or to evaluate."""
    skip: tuple[int, ...] = ()
    """Batches to leave out, besides those that the checkpoint left out."""
    address: str | None = None
    """Where else the run is kept; a node that lacks its folder fetches from there."""
    token: str = ""
    """Of this attempt; one whose run has got another since publishes nothing."""
