"""Commands that tests give in their own process."""

from __future__ import annotations

import subprocess
from contextlib import chdir
from pathlib import Path
from typing import Protocol


class Here(Protocol):
    """Gives a command in the module's `workplace`."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


def give(folder: Path, *arguments: str) -> int:
    """The exit status of a command that is given in a folder."""
    from launcher.cli import app
    from launcher.commands.exits import status_of

    with chdir(folder):
        return status_of(lambda: app(list(arguments)))
