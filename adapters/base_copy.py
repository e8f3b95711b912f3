"""The base on a node's own disk: copied there once, by whichever of the node's ranks comes first.

The ranks of a node would otherwise read it over the network once each.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from adapters.base_files import digest_of, files_of
from adapters.base_ref import BaseRef
from recipes.errors import BaseModelError, StorageError
from recipes.files import whole_folder

_VARIABLE = re.compile(r"\$\{?(\w+)")


@dataclass(frozen=True, slots=True)
class LocalBase:
    """Where a node has its base, and whether this process has copied it there."""

    folder: Path
    copied_bytes: int


def on_this_node(folder: Path, base: BaseRef, copy_to: str) -> LocalBase:
    """The base in a folder below `copy_to`, which may name variables of this node.

    A copy is known by its files' sizes and the base's digest; one that differs is made anew. Raises
    `StorageError` when there is no room for it, or it cannot be written, `BaseModelError` when what
    was copied is not the base.
    """
    place = _place(copy_to)
    # Whose it is belongs to the name: nobody else's copy is used, and nobody's stands in the way.
    final = place / f"shoal-base-{os.getuid()}-{base.digest[:16]}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f"{final.name}.lock"):
            if _is_whole(final, folder, base):
                return LocalBase(final, 0)
            for left in (final, *place.glob(f".{final.name}.*")):  # of a rank that was killed
                shutil.rmtree(left, ignore_errors=True)
            return LocalBase(final, _copy(folder, final, base))
    except StorageError:
        raise  # says already what cannot be written
    except OSError as error:
        raise StorageError(
            f"base.copy_to = {copy_to}: cannot be used on {socket.gethostname()}: {error}. Name a "
            "folder of the nodes' own disks, or leave it out"
        ) from error


def _place(copy_to: str) -> Path:
    expanded = os.path.expandvars(copy_to)
    if unset := _VARIABLE.search(expanded):
        raise StorageError(
            f"base.copy_to = {copy_to}: {unset[1]} is not set on {socket.gethostname()}. Name a "
            "variable that the nodes have, or a folder"
        )
    return Path(expanded)


def _is_whole(copy: Path, folder: Path, base: BaseRef) -> bool:
    return (
        copy.is_dir()
        and copy.stat().st_uid == os.getuid()
        and files_of(copy) == files_of(folder)
        and digest_of(copy) == base.digest
    )


def _copy(folder: Path, final: Path, base: BaseRef) -> int:
    files = files_of(folder)
    needed, free = sum(files.values()), shutil.disk_usage(final.parent).free
    if needed > free:
        raise StorageError(
            f"base.copy_to: {final.parent} on {socket.gethostname()} has room for {free:,} bytes, "
            f"and the base takes {needed:,}. Free some, name another folder, or leave it out"
        )
    with whole_folder(final) as aside:
        for name in files:
            (aside / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, aside / name)
        if digest_of(aside) != base.digest:
            raise BaseModelError(
                f"base.copy_to: what was copied from {folder} to {socket.gethostname()} is not the "
                "base that the run began with. It was changed meanwhile, or was not read right"
            )
    return needed
