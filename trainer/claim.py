"""Whose a run is: of its newest attempt alone.

When a driver is killed its ranks live on for a moment. Each attempt writes its token into the run's
folder before it starts; a rank that finds another there leaves the run alone. Of a run that is kept
on object storage the token lies there, for its ranks need not share a folder with the driver.
"""

from __future__ import annotations

from pathlib import Path

from adapters.mirror import open_mirror
from recipes.files import write_whole

_FILE = "attempt"


def claim(run_dir: Path, token: str) -> None:
    """The run belongs to the attempt with this token from now on."""
    write_whole(run_dir / _FILE, token)
    open_mirror(run_dir).write(_FILE, token)


def is_replaced(run_dir: Path, token: str) -> bool:
    """Whether another attempt has claimed the run; nobody replaces an attempt without a token."""
    if not token:
        return False
    mirror = open_mirror(run_dir)
    if mirror.address is not None:
        return mirror.read(_FILE) not in (token, None)
    try:
        return (run_dir / _FILE).read_text(encoding="utf-8") != token
    except OSError:
        return False
