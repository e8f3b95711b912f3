"""Runs that are kept on object storage: making and finding them by their address. Each is worked on
in a folder of the cache, which is what is returned."""

from __future__ import annotations

import difflib
import re
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from adapters.mirror import ObjectMirror, open_mirror
from adapters.object_store import ObjectStore
from recipes.address import join, last_name, parent, what_is_wrong, working_folder
from recipes.errors import CheckpointError, StorageError
from recipes.load import load

_RECIPE = "recipe.yaml"


def check_writable(address: str) -> None:
    """Raises `StorageError` when no run could be kept below an address."""
    try:
        ObjectStore(address, patience_s=0).check()
    except StorageError as error:
        raise StorageError(f"storage.path = {address}: cannot be used: {error}") from error


def create(address: str, name: str, cache: Path) -> Path:
    """A new run: `name`, or the first of `name-2`, `name-3`, … that is free."""
    number = 1
    while True:
        own = join(address, name if number == 1 else f"{name}-{number}")
        folder = working_folder(cache, own)
        if ObjectMirror(folder, own).take(uuid.uuid4().hex):
            return folder
        number += 1


def latest(address: str, name: str, cache: Path) -> Path | None:
    """The run of this name with the highest number, or None."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    store = ObjectStore(address)
    found = [
        (int(match[1] or 1), child)
        for child in store.children()
        if (match := pattern.fullmatch(child)) and store.get(f"{child}/{_RECIPE}") is not None
    ]
    return _fetched(join(address, max(found)[1]), cache) if found else None


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
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _RECIPE
        file.write_bytes(text)
        recipe = load(str(file), overrides).recipe
    return _fetched(address, Path(recipe.storage.cache))


def _fetched(address: str, cache: Path) -> Path:
    folder = working_folder(cache, address)
    open_mirror(folder, address).fetch_records()
    return folder


def _hint(address: str) -> str:
    above = parent(address)
    store = ObjectStore(above, patience_s=0)
    known = [name for name in store.children() if store.get(f"{name}/{_RECIPE}") is not None]
    near = difflib.get_close_matches(last_name(address), known, n=1)
    if near:
        return f"Did you mean {join(above, near[0])}?"
    return f"Runs in {above}: {', '.join(known) or 'none'}"
