"""Prepared data that is there already, found without starting anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.prepare import layout
from launcher.prepare.failures import Failures
from launcher.prepare.intact import damage_of
from launcher.prepare.key import prepared_key
from launcher.prepare.sources.digests import Digests, hash_here
from launcher.prepare.sources.source import Source, find_sources
from launcher.prepare.usage import note_use
from recipes.recipe import Recipe
from trainer.shards import read_manifest

MANIFEST = "manifest.json"

_LOOKED_AT_BYTES = 64 * 2**20

HASHED_HERE_BYTES = 256 * 2**20
"""Files up to this size together are read by this process; more are read by tasks, on all nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Prepared data; `fresh` when this call made it, else it was there."""

    folder: Path
    manifest: Mapping[str, Any]
    fresh: bool


def find_prepared(recipe: Recipe, *, base_folder: Path, cache: Path) -> Prepared | None:
    """The prepared data of a recipe if it is there; None when it is not, or when more of the
    sources has to be read to know that than this process should.

    Raises `DataError` when a source is not there, or when of what is there too much has failed.
    """
    folder = folder_for(
        recipe,
        find_sources(recipe.data, cache),
        base_folder=base_folder,
        cache=cache,
        most_bytes=HASHED_HERE_BYTES,
        remember=True,
    )
    return prepared_in(folder, recipe) if folder is not None else None


def look_for_prepared(
    recipe: Recipe, sources: Sequence[Source], *, base_folder: Path, cache: Path
) -> Path | None:
    """The folder of a recipe's prepared data if it is there, for who only looks: nothing is
    written, and sources that are not known are read only where that takes a tenth of a second."""
    folder = folder_for(
        recipe,
        sources,
        base_folder=base_folder,
        cache=cache,
        most_bytes=_LOOKED_AT_BYTES,
        remember=False,
    )
    return folder if folder is not None and _whole(folder) is not None else None


def folder_for(
    recipe: Recipe,
    sources: Sequence[Source],
    *,
    base_folder: Path,
    cache: Path,
    most_bytes: int,
    remember: bool,
) -> Path | None:
    """Where a recipe's prepared data lies or would lie. Sources that look as when they were last
    read are known; None when more than `most_bytes` of others would have to be read."""
    digests = Digests(folder=layout.digests(cache))
    known = digests.look(sources)
    unknown = sum(s.bytes for s, sha256 in zip(sources, known, strict=True) if sha256 is None)
    if unknown > most_bytes:
        return None
    entries = digests.of(sources, known, hash_here, remember=remember)
    return layout.finished(cache) / prepared_key(recipe, base_folder, entries)


def _whole(folder: Path) -> Mapping[str, Any] | None:
    """The manifest of a folder that holds all that it names."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    return manifest if damage_of(folder, manifest) is None else None


def prepared_in(folder: Path, recipe: Recipe) -> Prepared | None:
    """What is prepared in a folder, which is noted as used; None when nothing is, or when files of
    it are missing or cut off, so that it has to be prepared again."""
    manifest = _whole(folder)
    if manifest is None:
        return None
    Failures.of(manifest, recipe.data.max_failed).check()
    note_use(folder)
    return Prepared(folder=folder, manifest=manifest, fresh=False)
