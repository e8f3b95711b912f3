"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from recipes.errors import StorageError

_BLOCK_BYTES = 16 * 2**10


@contextmanager
def whole_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill beside `final`, renamed to it at the end, removed when something fails.

    When `final` exists by then it is left as it is and the new folder is dropped, or with `replace`
    it is deleted once the new one is ready.
    """
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    old = aside.with_name(f"{aside.name}.old")
    try:
        aside.mkdir(parents=True)
        yield aside
        for file in aside.rglob("*"):
            _sync(file)
        if replace and final.is_dir():
            final.rename(old)
        try:
            aside.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    except StorageError:
        raise  # says already what cannot be written
    except OSError as error:
        raise StorageError(f"{final}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if old.is_dir() and not final.is_dir():
            old.rename(final)
        shutil.rmtree(old, ignore_errors=True)


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part."""
    with whole_file(file) as stream:
        stream.write(text)


@contextmanager
def whole_file(file: Path) -> Iterator[TextIO]:
    """A text to write that takes the place of `file` at the end, and is gone when something
    fails."""
    with whole_path(file) as aside, aside.open("w", encoding="utf-8") as stream:
        yield stream


@contextmanager
def whole_path(file: Path) -> Iterator[Path]:
    """A path to write to beside `file`, which takes its place at the end, and is gone when
    something fails."""
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        _sync(aside)
        os.replace(aside, file)
    except StorageError:
        raise  # says already what cannot be written
    except OSError as error:
        raise StorageError(f"{file}: cannot be written: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def lines_from_end(file: Path) -> Iterator[bytes]:
    """The lines of a file, the last first, without their ends; nothing of one that is not there.

    Only as much is read as is asked for, and a last line that is being written counts as one.
    """
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        return
    with stream:
        place = stream.seek(0, os.SEEK_END)
        rest = b""
        while place > 0:
            size = min(_BLOCK_BYTES, place)
            place -= size
            stream.seek(place)
            first, *whole = (stream.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(whole) if line)
            rest = first
        if rest:
            yield rest


def sha256(file: Path) -> str:
    """sha256 of a file (hex, 64 characters)."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def existing(folder: Path) -> Path:
    """A folder, or the nearest above it that exists: where it will be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
