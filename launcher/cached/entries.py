"""What lies in the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.prepare import layout
from launcher.prepare.usage import REMOVED, noted_runs
from launcher.records import jobs
from launcher.records.locks import is_held
from launcher.records.runs import is_run, name_of
from recipes.errors import DataError
from trainer.shards import read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A run that is trained on prepared data."""

    name: str
    state: Literal["running", "queued", "ended", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEntry:
    """Prepared data."""

    key: str
    folder: Path
    recipe: str
    """The name of the recipe that made it."""
    samples: int
    tokens: int
    bytes: int
    made: float
    """When (seconds since 1970)."""
    used: float
    users: tuple[User, ...]
    """Runs that are still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialEntry:
    """Data whose preparing did not end yet, or whose removing did not."""

    key: str
    folder: Path
    bytes: int
    changed: float
    """When (seconds since 1970)."""
    is_made: bool
    """Whether somebody prepares it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherEntry:
    """Something else, which is only told."""

    what: str
    name: str
    bytes: int


_OTHERS = {
    "samples": "sample",
    "converted": "converted base",
    "hub": "base from a hub",
}


def prepared_entries(cache: Path) -> list[PreparedEntry]:
    """All prepared data, that which was used last first."""
    folders = layout.all_finished(cache)
    runs = {folder: [run for run in noted_runs(folder) if is_run(run)] for folder in folders}
    users = _users([run for found in runs.values() for run in found])
    entries = [
        entry
        for folder in folders
        if (entry := _prepared(folder, [users[run] for run in runs[folder]])) is not None
    ]
    return sorted(entries, key=lambda entry: (-entry.used, entry.key))


def _prepared(folder: Path, users: Sequence[User]) -> PreparedEntry | None:
    try:
        manifest = read_manifest(folder)
        made, used = (folder / "manifest.json").stat().st_mtime, folder.stat().st_mtime
    except (DataError, OSError):  # removed meanwhile
        return None
    splits = manifest["splits"].values()
    return PreparedEntry(
        key=folder.name,
        folder=folder,
        recipe=manifest.get("recipe", ""),
        samples=sum(split["samples"] for split in splits),
        tokens=sum(split["tokens"] for split in splits),
        bytes=bytes_of(folder),
        made=made,
        used=max(made, used),
        users=tuple(users),
    )


def _users(runs: Sequence[Path]) -> dict[Path, User]:
    once = list(dict.fromkeys(runs))
    states = jobs.states_of(once)
    return {
        run: User(name=name_of(run), state=state.phase)
        for run, state in zip(once, states, strict=True)
    }


def partial_entries(cache: Path) -> list[PartialEntry]:
    """What was begun, sorted by key."""
    begun = [folder for folder in layout.begun(cache).glob("*") if folder.is_dir()]
    left = list(layout.finished(cache).glob(f".*{REMOVED}"))
    entries = []
    for folder in sorted([*begun, *left]):
        key = folder.name.removeprefix(".").removesuffix(REMOVED)
        with suppress(OSError):  # made or removed meanwhile
            entries.append(
                PartialEntry(
                    key=key,
                    folder=folder,
                    bytes=bytes_of(folder),
                    changed=_last_change(folder),
                    is_made=is_held(layout.lock_file(cache, key)),
                )
            )
    return entries


def _last_change(folder: Path) -> float:
    """Of a folder or what lies below it; whoever makes it writes files aside, which come and go."""
    last = folder.stat().st_mtime
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(OSError):
                last = max(last, (Path(above) / name).stat().st_mtime)
    return last


def other_entries(cache: Path) -> Iterator[OtherEntry]:
    """Samples, bases that were converted or fetched, and the digests of sources."""
    for name, what in _OTHERS.items():
        for folder in sorted((cache / name).glob("[!.]*")):
            if folder.is_dir():
                yield OtherEntry(what=what, name=folder.name, bytes=bytes_of(folder))
    digests = layout.digests(cache)
    if files := list(digests.glob("*.json")):
        name = f"of {len(files):,} source files"
        yield OtherEntry(what="digests", name=name, bytes=bytes_of(digests))


def bytes_of(folder: Path) -> int:
    """Of all files below a folder; links count as nothing."""
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                file = Path(above) / name
                total += 0 if file.is_symlink() else file.stat().st_size
    return total
