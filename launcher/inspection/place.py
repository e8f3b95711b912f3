"""Which prepared data is meant: by a recipe, by a key in the cache, or by its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.cached.removal import one_key
from launcher.prepare import layout
from launcher.prepare.intact import damage_of
from recipes import shipped
from recipes.errors import DataError, RecipeError
from recipes.load import load
from trainer.shards import read_manifest

_KEY = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Prepared data."""

    folder: Path
    manifest: Mapping[str, Any]


def find(reference: str, overrides: Sequence[str], cache: Path) -> Place:
    """The prepared data that a person names.

    `cache` holds the keys; recipes say themselves where theirs is. Raises `DataError` when the data
    of a recipe is not prepared, or a folder holds none, `RecipeError` when nothing is called so.
    """
    folder = Path(reference).expanduser()
    if (folder / "manifest.json").is_file():
        return _opened(folder)
    is_recipe = folder.is_file() or reference in shipped.names()
    if is_recipe or (folder / "recipe.yaml").is_file():
        return _of_recipe(reference, overrides)
    if folder.is_dir():
        raise DataError(f"{folder}: holds no prepared data, and no recipe")
    if _KEY.fullmatch(reference):
        keys = {prepared.name for prepared in layout.all_finished(cache)}
        return _opened(layout.finished(cache) / one_key(reference, keys))
    shipped.find(reference)  # raises, with the nearest name
    raise AssertionError("unreachable")


def _opened(folder: Path) -> Place:
    manifest = read_manifest(folder)
    if "splits" not in manifest or "by_source" not in manifest:
        raise DataError(f"{folder}: its manifest is not one of prepared data")
    if (damage := damage_of(folder, manifest)) is not None:
        raise DataError(f"{damage}. To prepare it again: shoal prepare, with the recipe it was for")
    return Place(folder=folder.resolve(), manifest=manifest)


def _of_recipe(reference: str, overrides: Sequence[str]) -> Place:
    from adapters.base_ref import locate
    from launcher.prepare.found import look_for_prepared
    from launcher.prepare.sources.source import find_sources

    recipe = load(reference, overrides).recipe
    cache = Path(recipe.storage.cache)
    sources = find_sources(recipe.data, cache)
    base_folder = locate(recipe.base, cache, download=False)
    folder = look_for_prepared(recipe, sources, base_folder=base_folder, cache=cache)
    if folder is None:
        changes = " ".join(["", *overrides])
        raise DataError(
            f"{reference}: its data is not prepared, or has changed since. Prepare it with: "
            f"shoal prepare {reference}{changes}"
        )
    return _opened(folder)


def check_sample(manifest: Mapping[str, Any], sample: int) -> None:
    """Raises `RecipeError` for what is no id of a sample of this data."""
    if not 0 <= sample >> 32 < len(manifest["units"]):
        raise RecipeError(
            f"--sample {sample}: is no sample of this data. Ids are shown with samples, and by "
            "shoal ledger RUN --step N"
        )
