"""The guard at start-up: shoal's five top-level names must be shoal's.

`trainer`, `adapters` and `recipes` are common names: other distributions own them on the package
index, and a folder of that name beside a person's data is nothing unusual. Either would be imported
in the place of ours, on the driver or on a worker, and fail in ways that say nothing.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from recipes.errors import InstallError

ROOMS = ("launcher", "trainer", "adapters", "recipes", "cluster")
_OURS = "shoal"
_ROOM_FILE = re.compile(rf"^({'|'.join(ROOMS)})(?:/|\.py)", re.MULTILINE)


def own_command() -> str:
    """The shoal command that runs this very installation."""
    return str(Path(sys.executable).parent / "shoal")


def check_install(folder: Path | None = None) -> None:
    """Raises `InstallError` when another distribution, or the working directory, takes a name."""
    _check_owners()
    _check_folder(folder or Path.cwd())


def _check_owners() -> None:
    for distribution in distributions():
        # Names alone, without parsing anybody's metadata: this runs at every command.
        taken = _rooms_in(distribution.read_text("top_level.txt"), distribution.read_text("RECORD"))
        if taken and distribution.metadata["Name"] != _OURS:
            raise InstallError(
                f"the package '{taken[0]}' is also installed by {distribution.metadata['Name']} "
                f"{distribution.version}, and one hides the other. Install shoal in an environment "
                "of its own"
            )


def _rooms_in(top_level: str | None, record: str | None) -> list[str]:
    """The rooms that a distribution brings, by its list of names or else of files."""
    if top_level is not None:
        return [room for room in ROOMS if room in top_level.split()]
    return _ROOM_FILE.findall(record or "")


def _check_folder(folder: Path) -> None:
    home = Path(__file__).resolve().parent.parent
    if folder.resolve() == home:
        return
    for room in ROOMS:
        for rival in (folder / room / "__init__.py", folder / f"{room}.py"):
            if rival.is_file():
                raise InstallError(
                    f"{rival} would be imported by Ray's workers in the place of shoal's own "
                    f"'{room}'. Run shoal from another folder, or rename it"
                )
