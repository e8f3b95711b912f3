"""A sample of what `make chaos` does: each story ends as the run that was left alone."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.disturbances import KILLS, OTHERS, Disturbance
from chaos.stories import Story, Trace, tell, trace_of
from chaos.workplace import make_workplace, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EVERY: dict[str, Disturbance] = {**KILLS, **OTHERS}

# CI has the time for one: tests/test_end_to_end.py kills a rank and stops one, and those with SLURM
# switch machines off.
STORIES = {"killed": ["rank while saving", "raylet"], "stopped": ["hang", "driver"]}
ON_A_SMALL_DISK = ["full disk", "driver while saving", "bit flip"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="module")
def untouched(workplace: Path) -> Trace:
    return trace_of(tell(workplace, "untouched", [], random.Random(0)).run)


@pytest.fixture
def on_a_small_disk(workplace: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    with small_disk(workplace / "runs"):
        yield


def told(workplace: Path, name: str, kinds: list[str]) -> Story:
    story = tell(workplace, name, [(kind, EVERY[kind]) for kind in kinds], random.Random(name))
    assert len(story.happened) == len(kinds)
    return story


def test_on_a_disk_that_was_full_a_killed_and_spoilt_run_ends_as_if_nothing_had_been(
    workplace: Path, untouched: Trace, on_a_small_disk: None
):
    """A full disk is waited for: only who killed the driver has to resume."""
    story = told(workplace, "full", ON_A_SMALL_DISK)
    assert story.resumes == 2, story.happened
    assert trace_of(story.run) == untouched, story.happened


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", STORIES)
def test_a_run_ends_as_if_nothing_had_been(workplace: Path, untouched: Trace, name: str):
    story = told(workplace, name, STORIES[name])
    assert trace_of(story.run) == untouched, story.happened
