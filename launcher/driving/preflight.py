"""What can be known before ranks start: found out on the cluster, while the data is prepared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from adapters.checkpoint_folder import predicted_bytes
from launcher.plan.disk import kept_checkpoints
from recipes.address import is_address
from recipes.errors import RecipeError, ShoalError, StorageError
from recipes.recipe import Recipe
from trainer.label_scores import LABEL_SCORES, LABEL_SET_SCORES


class Preflight:
    """Checks under way; `land` waits for them: the number of parameters that are trained, if it can
    be told. Raises what they found wrong."""

    def __init__(self, recipe: Recipe, base_folder: Path) -> None:
        self._pending: Any = _check.remote(recipe, base_folder)

    def land(self) -> int | None:
        found: int | ShoalError | None = ray.get(self._pending)
        if isinstance(found, ShoalError):
            raise found
        return found


@ray.remote(num_cpus=1)
def _check(recipe: Recipe, base_folder: Path) -> int | ShoalError | None:
    """The error the ranks would have, returned as a value: Ray would wrap it."""
    from adapters.attach import trained_parameters

    try:
        return trained_parameters(
            base_folder,
            recipe.adapter,
            task=recipe.task,
            new_tokens=recipe.base.new_tokens,
        )
    except ShoalError as error:
        return error


def check_room(
    recipe: Recipe, free_bytes: Mapping[str, int], trained_parameters: int | None
) -> None:
    """Raises `StorageError` when the checkpoints of a run would not fit into the folder in which it
    works. `free_bytes` is what is free there, by node: whichever has rank 0 writes them."""
    if trained_parameters is None:
        return
    named = "cache" if is_address(recipe.storage.path) else "path"
    kept = kept_checkpoints(recipe.checkpoint, recipe.train.steps)
    # One more is written before the oldest goes.
    needed = (kept + 1) * predicted_bytes(trained_parameters)
    host, free = min(free_bytes.items(), key=lambda item: item[1])
    if needed > free:
        raise StorageError(
            f"storage.{named} = {getattr(recipe.storage, named)}: on {host} it has room for "
            f"{free:,} bytes; {kept} checkpoints and one being written take {needed:,}. Free some, "
            "or lower checkpoint.keep"
        )


def check_best_by(recipe: Recipe, manifest: Mapping[str, Any]) -> None:
    """Raises `RecipeError` for a score that such labels do not get, by which no checkpoint would be
    kept. Whether a text can have several labels is known only when the data is prepared."""
    several = recipe.task == "sequence_classification" and manifest["multi_label"]
    by, names = recipe.checkpoint.best_by, LABEL_SET_SCORES if several else LABEL_SCORES
    if recipe.checkpoint.keep_best == 0 or by in ("loss", *names):
        return
    which = "several labels" if several else "one label"
    hint = ". A text counts for exact_match when it got all its labels and no other"
    raise RecipeError(
        f"checkpoint.best_by = {by}: texts with {which} have no such score; there are "
        f"{', '.join(['loss', *names])}{hint if several else ''}"
    )
