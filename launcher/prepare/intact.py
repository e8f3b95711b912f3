"""Whether prepared data is all there, by the sizes of its files, and a new one for what is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.prepare.usage import REMOVED
from trainer.split import index_bytes

# On storage of a network each file is asked for by itself.
_LOOKING = 16


def damage_of(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """The first file of a prepared folder that is missing or of another size than was written, and
    how it is; None when all are there.

    Shards of manifests from before sizes were kept are only asked whether they are there. Bytes
    that are others are found by `shoal verify`.
    """
    with ThreadPoolExecutor(_LOOKING) as pool:
        said = pool.map(lambda expected: _wrong(*expected), _expected(folder, manifest))
        return next(filter(None, said), None)


def remove_unfinished(made: Path) -> None:
    """Remove the work folder, and what processes that were killed had begun to write aside."""
    shutil.rmtree(made / "work", ignore_errors=True)
    for file in made.rglob(".*"):
        # NFS keeps a file that a worker still maps, as boilerplate_lines does, by a hidden name
        # until it is let go, and refuses to remove it.
        with suppress(OSError):
            file.unlink()


def put_in_place(made: Path, folder: Path) -> None:
    """Move what was made to where it is looked for, and remove what is damaged there. When this is
    interrupted there is nothing in its place, and `made` is whole."""
    damaged = folder.with_name(f".{folder.name}{REMOVED}")
    if folder.exists():
        shutil.rmtree(damaged, ignore_errors=True)
        os.replace(folder, damaged)
    os.replace(made, folder)
    shutil.rmtree(damaged, ignore_errors=True)


def _expected(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[Path, int | None]]:
    for name, split in manifest["splits"].items():
        for shard in split["shards"]:
            yield folder / name / shard["file"], shard.get("bytes")
        if "index" in split:
            for file, size in index_bytes(split["shards"]).items():
                yield folder / name / file, size


def _wrong(file: Path, expected: int | None) -> str | None:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return f"{file}: is missing"
    if expected not in (None, size):
        return f"{file}: has {size:,} of {expected:,} bytes"
    return None
