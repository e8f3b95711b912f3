"""A stage of preparing: one Ray Data task for each of its items.

A task leaves files and, last, a report that names them with their digests. Preparing that was
interrupted goes on from there: a task whose report is true of its files is not done again, a torn
or missing file makes it so. Tasks are functions of their item and of what earlier stages left, so
what they write does not depend on the number of CPUs or nodes, nor on how often they were begun.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from launcher.access import Access
from recipes.errors import DataError, ShoalError, StorageError
from recipes.files import sha256, write_whole


class Item(Protocol):
    """What one task works on; one that reads a file names it, as a text."""

    @property
    def number(self) -> int:
        """Of the item in its stage."""


class Working(Protocol):
    """What tasks are told, with a folder to work in that all nodes see."""

    @property
    def work(self) -> Path: ...


_NO_ACCESS = Access()

# A task whose node is lost is begun again, and so is one that brings its process down, which Ray
# would begin for ever.
_MOST_DEATHS = 3

I = TypeVar("I", bound=Item)  # noqa: E741 - an item
W = TypeVar("W", bound=Working)

Report = dict[str, Any]
"""Plain JSON. Under `files`: what the task left, named from the folder above the work folder."""

Progress = Callable[[int, int], None]
"""Items done, items in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage whose finished tasks are kept. `name` is the folder of its reports."""

    name: str
    function: Callable[[Any, Any], Report]

    def __call__(self, item: Item, context: Working) -> Report:
        folder = context.work / self.name
        folder.mkdir(exist_ok=True)
        file = folder / f"{item.number:05d}.json"
        report = _kept(file, context.work.parent)
        if report is None:
            report = self.function(item, context)
            entries = {name: _entry(context.work.parent / name) for name in report["files"]}
            report |= {"files": entries}
            write_whole(file, json.dumps(report, ensure_ascii=False))
        return report


def _entry(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def _kept(file: Path, root: Path) -> Report | None:
    """The report of a task that was finished before, if its files are what it says."""
    with suppress(OSError, ValueError, KeyError):
        report: Report = json.loads(file.read_text(encoding="utf-8"))
        if all(_entry(root / name) == entry for name, entry in report["files"].items()):
            return report
    return None


def settle_ray_data() -> None:
    """Results come in order and at once, and Ray Data keeps its voice down."""
    # They are a few bytes. A thread that fetches them takes one more round of Ray Data's loop after
    # each task, in which a CPU waits 0.1 s for its next one.
    os.environ.setdefault("RAY_DATA_METADATA_PREFETCH_ON_THREAD", "0")
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    settings = DataContext.get_current()
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False
    settings.execution_options.preserve_order = True


def run_on_ray(
    function: Callable[[I, W], Any],
    items: Sequence[I],
    context: W,
    progress: Progress,
    *,
    access: Access = _NO_ACCESS,
    look: Callable[[Any], None] = lambda result: None,
) -> list[Any]:
    """Call `function` once for each item, each in a Ray Data task of its own; results in order.

    `access` is given to every task. Each result is shown to `look` as it comes, which may raise.
    Raises the `ShoalError` of the first task that had one.
    """
    import ray

    if not items:
        return []
    settle_ray_data()
    blocks = [{"item": pickle.dumps(item)} for item in items]
    dataset = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
        _call,  # type: ignore[arg-type]
        fn_kwargs={"function": function, "context": context, "access": access},
    )
    results = []
    progress(0, len(items))
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, ShoalError):
            raise result
        look(result)
        results.append(result)
        progress(len(results), len(items))
    return results


def _call(
    row: dict[str, Any], function: Callable[[I, W], Any], context: W, access: Access
) -> dict[str, Any]:
    access.use()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task has one CPU, and its neighbours theirs
    item = pickle.loads(row["item"])
    # An error goes back as a value: Ray would wrap it in its own, and lose it on the way.
    try:
        _check_deaths(item)
        result = function(item, context)
    except ShoalError as error:
        result = error
    except OSError as error:
        result = StorageError(f"{context.work}: {error}. Preparing needs room and access there")
    return {"result": pickle.dumps(result)}


def _check_deaths(item: Item) -> None:
    """Raises `DataError` when this task has brought its process down too often."""
    from ray._private import worker

    here: Any = worker.global_worker
    deaths = here.core_worker.get_current_task_attempt_number()
    if deaths >= _MOST_DEATHS:
        raise DataError(
            f"{item}: the process that works on it has died {deaths} times. It may need more "
            "memory than there is (docs/data.md says how much a task takes; a filter such as "
            "characters drops rows that are too long), or a library or a step of your own ends it"
        )
