"""Looking at locks that others hold."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_held(file: Path) -> bool:
    """Whether a process holds the `FileLock` of a file. It is only read: it may be another
    person's, or gone meanwhile, folder and all. Raises `OSError` when it cannot be."""
    try:
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
