"""What can be known before ranks start: found out on the cluster, while the data is prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray

from adapters.checkpoint_folder import predicted_bytes
from cluster.versions import check_versions
from launcher.plan.disk import kept_checkpoints
from recipes.address import is_address
from recipes.errors import ShoalError, StorageError
from recipes.recipe import Recipe


class Preflight:
    """Checks under way; `land` waits for them: the number of parameters that are trained. Raises
    what they found wrong."""

    def __init__(self, recipe: Recipe, base_folder: Path) -> None:
        self._pending: Any = _check.remote(recipe, base_folder)

    def land(self) -> int:
        found: int | ShoalError = ray.get(self._pending)
        if isinstance(found, ShoalError):
            raise found
        return found


@ray.remote(num_cpus=1)
def _check(recipe: Recipe, base_folder: Path) -> int | ShoalError:
    """The error the ranks would have, returned as a value: Ray would wrap it."""
    from adapters.attach import trained_parameters

    try:
        return trained_parameters(base_folder, recipe.adapter, task=recipe.task)
    except ShoalError as error:
        return error


def check_software(recipe: Recipe, tell: Callable[[str], None]) -> None:
    """Raises `ClusterError` when nodes have other software with which the run could not work; what
    may be let pass is told. A Ray that was started here has what is here."""
    if recipe.cluster.kind != "local":
        for difference in check_versions():
            tell(f"Not all nodes have the same software. {difference}")


def check_room(recipe: Recipe, free_bytes: Mapping[str, int], trained_parameters: int) -> None:
    """Raises `StorageError` when the checkpoints of a run would not fit into the folder in which it
    works. `free_bytes` is what is free there, by node: whichever has rank 0 writes them."""
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
