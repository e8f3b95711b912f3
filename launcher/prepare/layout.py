"""Where what preparing makes lies in a cache, the folder of `storage.cache`."""

from __future__ import annotations

from pathlib import Path


def finished(cache: Path) -> Path:
    """Prepared data, a folder for each key."""
    return cache / "prepared"


def all_finished(cache: Path) -> list[Path]:
    """The folders of prepared data; one that is being removed is none, its name has a dot."""
    return [file.parent for file in finished(cache).glob("[!.]*/manifest.json")]


def begun(cache: Path) -> Path:
    """What is being prepared, or was when it was interrupted, a folder for each key."""
    return cache / "preparing"


def lock_file(cache: Path, key: str) -> Path:
    """Locked while the data of a key is made or removed."""
    return cache / "locks" / f"{key}.lock"


def digests(cache: Path) -> Path:
    """What is remembered of source files, so that they need not be read again to find a key."""
    return cache / "digests"
