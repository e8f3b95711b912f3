"""What can be known before ranks start: found out on the cluster, while the data is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from recipes.errors import ShoalError
from recipes.recipe import Recipe


class Preflight:
    """Checks under way; `land` waits for them and raises what they found."""

    def __init__(self, recipe: Recipe, base_folder: Path) -> None:
        self._pending: Any = _check.remote(recipe, base_folder)

    def land(self) -> None:
        found = ray.get(self._pending)
        if found is not None:
            raise found


@ray.remote(num_cpus=1)
def _check(recipe: Recipe, base_folder: Path) -> ShoalError | None:
    """The error the ranks would have, returned as a value: Ray would wrap it."""
    from adapters.attach import check_fit

    try:
        check_fit(base_folder, recipe.adapter, task=recipe.task)
    except ShoalError as error:
        return error
    return None
