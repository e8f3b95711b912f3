"""Commands that tests give."""

from __future__ import annotations

import subprocess
from typing import Protocol


class Here(Protocol):
    """Does a command in the process of the tests."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...
