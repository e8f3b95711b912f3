"""Which of the cache is meant, whether it may go, and removing it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from launcher.cached.entries import PartialEntry, PreparedEntry
from launcher.prepare import layout
from launcher.prepare.usage import REMOVED, forget_runs
from recipes.errors import RecipeError, StorageError
from recipes.listing import listed

Entry = PreparedEntry | PartialEntry

_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def seconds_of(duration: str) -> float:
    """`12h`, `30d` or `4w` in seconds. Raises `RecipeError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", duration.strip())
    if found is None:
        raise RecipeError(
            f"--unused {duration}: is no duration. Write hours, days or weeks as 12h, 30d, 4w"
        )
    return float(found[1]) * _SECONDS[found[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is meant of the cache. All of it when nothing is said."""

    keys: tuple[str, ...] = ()
    """Keys, or their beginnings."""
    unused_s: float | None = None
    """Prepared data that was not used for so long."""
    partial: bool = False
    """What was begun and is not being made."""

    @property
    def says_something(self) -> bool:
        return bool(self.keys or self.unused_s is not None or self.partial)


def choose(
    wanted: Wanted,
    prepared: Sequence[PreparedEntry],
    partial: Sequence[PartialEntry],
    now: float,
) -> tuple[list[PreparedEntry], list[PartialEntry]]:
    """What is meant. Raises `RecipeError` for a key that is none, or the beginning of several."""
    if not wanted.says_something:
        return list(prepared), list(partial)
    by_key: dict[str, None] = {}
    known = {entry.key for entry in prepared} | {entry.key for entry in partial}
    for begin in wanted.keys:
        by_key[one_key(begin, known)] = None
    unused = wanted.unused_s
    return (
        [
            entry
            for entry in prepared
            if entry.key in by_key or (unused is not None and now - entry.used >= unused)
        ],
        [
            entry
            for entry in partial
            if entry.key in by_key or (wanted.partial and not entry.is_made)
        ],
    )


def one_key(begin: str, known: set[str]) -> str:
    """The only key that begins so. Raises `RecipeError` when there is none, or more than one."""
    found = sorted(key for key in known if key.startswith(begin)) if begin else []
    if begin in found:
        return begin
    if len(found) == 1:
        return found[0]
    if not found:
        raise RecipeError(
            f"{begin}: no data in the cache has a key that begins so. See: shoal cache"
        )
    raise RecipeError(f"{begin}: several keys begin so: {listed(found)}. Write more of it")


def why_kept(entry: Entry) -> str | None:
    """Why something should not be removed, or None."""
    if isinstance(entry, PartialEntry):
        return "is being prepared now" if entry.is_made else None
    going = [user for user in entry.users if user.state in ("running", "queued")]
    if going:
        return f"is used by {listed([f'{user.name} ({user.state})' for user in going])}"
    unknown = [user.name for user in entry.users if user.state == "unknown"]
    if unknown:
        return f"may be used by {listed(unknown)}, whose scheduler cannot be asked now"
    return None


def remove(cache: Path, entry: Entry) -> None:
    """Remove one folder. Nobody can begin to make it meanwhile, and what is left when this is
    interrupted is never taken for data.

    Raises `StorageError` when it is being made, or cannot be removed.
    """
    aside = layout.finished(cache) / f".{entry.key}{REMOVED}"
    lock_file = layout.lock_file(cache, entry.key)
    try:
        lock_file.parent.mkdir(exist_ok=True)
        with FileLock(lock_file, timeout=0):
            if entry.folder != aside:
                if aside.exists():
                    shutil.rmtree(aside)
                aside.parent.mkdir(exist_ok=True)
                os.replace(entry.folder, aside)
            if isinstance(entry, PreparedEntry):
                forget_runs(entry.folder)
            shutil.rmtree(aside)
    except Timeout:
        raise StorageError(f"{entry.folder}: is being prepared now, and stays") from None
    except OSError as error:
        raise StorageError(f"{entry.folder}: cannot be removed: {error}") from error
