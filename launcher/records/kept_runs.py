"""Runs that are kept on object storage: making and finding them by their address. Each is worked on
in a folder of the cache, which is what is returned."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from adapters.mirror import ObjectMirror, open_mirror
from adapters.object_store import ObjectStore
from launcher.records import run_names
from recipes.address import join, last_name, parent, what_is_wrong, working_folder
from recipes.errors import CheckpointError, StorageError
from recipes.listing import listed
from recipes.load import load_text

_RECIPE = "recipe.yaml"


def check_writable(address: str) -> None:
    """Raises `StorageError` when no run could be kept below an address."""
    try:
        ObjectStore(address, patience_s=0).check()
    except StorageError as error:
        raise StorageError(f"storage.path = {address}: cannot be used: {error}") from error


def create(address: str, name: str, cache: Path) -> Path:
    """A new run: `name`, or the first of `name-2`, `name-3`, … that is free."""
    for own_name in run_names.numbered(name):
        own = join(address, own_name)
        folder = working_folder(cache, own)
        if ObjectMirror(folder, own).take(uuid.uuid4().hex):
            return folder
    raise AssertionError("there is always a next name")


def latest(address: str, name: str, cache: Path) -> Path | None:
    """The run of this name with the highest number, or None."""
    store = ObjectStore(address)
    same = [child for child in store.children() if run_names.newest(name, [child])]
    newest = run_names.newest(name, _runs(store, same))
    return _fetched(join(address, newest), cache) if newest is not None else None


def _runs(store: ObjectStore, names: Sequence[str]) -> list[str]:
    """Those of some names that runs have."""
    return [name for name in names if store.get(f"{name}/{_RECIPE}") is not None]


def find(address: str, overrides: Sequence[str]) -> Path:
    """A run by its address. The cache is that of its recipe, with the overrides.

    Raises `CheckpointError` when there is none, with near names.
    """
    address = address.rstrip("/")
    wrong = what_is_wrong(address)
    if wrong is not None:
        raise CheckpointError(f"{address}: {wrong}")
    # Asked once for what can pass: a person waits, and may have typed another server.
    text = ObjectStore(address, patience_s=0).get(_RECIPE)
    if text is None:
        raise CheckpointError(f"{address}: there is no such run. {_hint(address)}")
    recipe = load_text(text, overrides).recipe
    return _fetched(address, Path(recipe.storage.cache))


def _fetched(address: str, cache: Path) -> Path:
    folder = working_folder(cache, address)
    open_mirror(folder, address).fetch_records()
    return folder


def _hint(address: str) -> str:
    above = parent(address)
    store = ObjectStore(above, patience_s=0)
    known = _runs(store, store.children())
    near = run_names.near(last_name(address), known)
    if near:
        return f"Did you mean {join(above, near)}?"
    return f"Runs in {above}: {listed(known) or 'none'}"
