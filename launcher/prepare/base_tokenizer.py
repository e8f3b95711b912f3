"""The base's tokenizer, made ready for tasks while other things are done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.light_tokenizer import leave_tokenizer
from recipes.errors import ShoalError, StorageError
from recipes.recipe import Recipe


class BaseTokenizer:
    """On its way to `folder`, which all nodes see. One worker of the connected Ray imports torch
    for it, so that neither the driver nor any other worker does."""

    def __init__(
        self, folder: Path, recipe: Recipe, base_folder: Path, chat_template: str | None
    ) -> None:
        import ray

        # Rows are cleaned on all CPUs meanwhile.
        task = ray.remote(num_cpus=0)(leave)
        self._pending: Any = task.remote(folder, recipe, base_folder, chat_template)
        self._is_there = False

    def look(self) -> None:
        """Raises what is known to have failed by now."""
        import ray

        if not self._is_there and ray.wait([self._pending], timeout=0)[0]:
            self.land()

    def wait(self) -> None:
        """Until it lies there, or has failed."""
        import ray

        ray.wait([self._pending])

    def land(self) -> None:
        """Wait until it lies there. Raises `BaseModelError` when it cannot be used."""
        import ray

        failed: ShoalError | None = ray.get(self._pending)
        if failed is not None:
            raise failed
        self._is_there = True


def leave(
    folder: Path, recipe: Recipe, base_folder: Path, chat_template: str | None
) -> ShoalError | None:
    """Leave it in `folder`: None, or what went wrong, which Ray would wrap if it were raised."""
    try:
        leave_tokenizer(
            folder,
            base_folder,
            recipe.base.new_tokens,
            chat_template,
            with_offsets=recipe.task == "causal_lm",
        )
    except ShoalError as error:
        return error
    except OSError as error:
        return StorageError(f"{folder}: cannot be written: {error}")
    return None
