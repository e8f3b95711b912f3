"""A run to compare with, for the tests of all places."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="session")
def untouched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of such a recipe on this machine alone."""
    folder = make_workplace(tmp_path_factory.mktemp("untouched"), steps=STEPS)
    subprocess.run([SHOAL, "run", "tiny.yaml", "name=untouched"], cwd=folder, check=True)
    return folder / "runs" / "untouched"


@pytest.fixture(scope="module")
def untouched(workplace: Path, untouched_run: Path) -> Trace:
    """Its trace; the run lies among those of the workplace too."""
    shutil.copytree(untouched_run, workplace / "runs" / "untouched")
    return trace_of(untouched_run)
