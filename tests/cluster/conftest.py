"""A run to compare with, for the tests of all places."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from chaos.stories import Trace, trace_of
from chaos.workplace import make_workplace

from lab.runs import SHOAL, STEPS


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of two workers, and all that it needs."""
    return make_workplace(tmp_path_factory.mktemp("workplace"), steps=STEPS)


@pytest.fixture(scope="module")
def untouched(workplace: Path) -> Trace:
    """The run of the workplace's recipe on this machine alone."""
    subprocess.run([SHOAL, "run", "tiny.yaml", "name=untouched"], cwd=workplace, check=True)
    return trace_of(workplace / "runs" / "untouched")
