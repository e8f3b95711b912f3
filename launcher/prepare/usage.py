"""When prepared data was last used, and by which runs: what `shoal cache` tells and keeps."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from recipes.errors import StorageError

REMOVED = ".removed"
"""Ends the name of a folder of prepared data that is being removed."""

_FOLDER = "users"


def note_use(folder: Path) -> None:
    """That prepared data was used now: the time of its folder, in which nothing else changes."""
    with suppress(OSError):  # another person's
        os.utime(folder)


def note_run(folder: Path, run_dir: Path) -> None:
    """That a run is trained on prepared data, beside the data: runs may lie anywhere.

    Raises `StorageError` when it cannot be noted.
    """
    if run_dir in noted_runs(folder):
        return
    file = _file(folder)
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(f"{run_dir.resolve()}\n")
    except OSError as error:
        raise StorageError(f"{file}: cannot be written: {error}") from error


def noted_runs(folder: Path) -> list[Path]:
    """The runs that were trained on prepared data, the first one first; they may be gone."""
    try:
        text = _file(folder).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [Path(line) for line in dict.fromkeys(text.splitlines()) if line]


def forget_runs(folder: Path) -> None:
    """Of data that is no more."""
    _file(folder).unlink(missing_ok=True)


def _file(folder: Path) -> Path:
    return folder.parent.with_name(_FOLDER) / f"{folder.name}.txt"
