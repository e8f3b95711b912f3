"""The edge of a plan: what lies on disk is looked at, nothing is downloaded or started."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapters.base_ref import locate
from launcher.plan.base_shape import BaseShape, read_base_shape
from launcher.plan.machine import Machine
from launcher.plan.plan import Known
from launcher.plan.rows import Rows, count_rows, estimate_rows
from launcher.prepare.found import look_for_prepared
from launcher.prepare.sources.source import find_sources
from recipes.address import is_address
from recipes.errors import BaseModelError, DataError
from recipes.files import existing
from recipes.recipe import Recipe


def look(recipe: Recipe, machine: Machine) -> Known:
    """What can be known of a recipe here. A base or data that are not here, or cannot be read, are
    among `missing`, with the reason."""
    missing: list[str] = []
    cache = Path(recipe.storage.cache)
    folder: Path | None = None
    try:
        folder = locate(recipe.base, cache, download=False)
    except BaseModelError as error:
        missing.append(str(error))
    rows: Rows | None = None
    try:
        rows = _rows(recipe, folder, cache)
    except DataError as error:
        missing.append(str(error))
    base: BaseShape | None = None
    if folder is not None:
        try:
            base = read_base_shape(folder, task=recipe.task, num_labels=_num_labels(recipe, rows))
        except BaseModelError as error:
            missing.append(str(error))
    return Known(
        rows=rows,
        base=base,
        machine=machine,
        room_bytes=free_bytes(recipe),
        missing=tuple(missing),
    )


def _rows(recipe: Recipe, base_folder: Path | None, cache: Path) -> Rows:
    sources = find_sources(recipe.data, cache)
    prepared = None
    if base_folder is not None:
        prepared = look_for_prepared(recipe, sources, base_folder=base_folder, cache=cache)
    return count_rows(prepared) if prepared is not None else estimate_rows(recipe, sources)


def _num_labels(recipe: Recipe, rows: Rows | None) -> int:
    labels = rows.labels if rows is not None else tuple(recipe.data.labels)
    return len(labels) or 2


def free_bytes(recipe: Recipe) -> int | None:
    """Where a run works: in the cache when it is kept at an address."""
    kept = recipe.storage.cache if is_address(recipe.storage.path) else recipe.storage.path
    folder = Path(kept)
    try:
        return shutil.disk_usage(existing(folder)).free
    except OSError:
        return None
