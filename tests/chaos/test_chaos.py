"""A sample of what `make chaos` does: each story ends as the run that was left alone."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.disturbances import KILLS, OTHERS, Disturbance
from chaos.stories import Trace, tell, trace_of
from chaos.workplace import make_workplace, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EVERY: dict[str, Disturbance] = {**KILLS, **OTHERS}

# A bit flips when the driver was killed; tests/test_end_to_end.py kills a rank and stops one, and
# those with SLURM switch machines off.
STORIES = {
    "killed and spoilt": ["driver while saving", "bit flip"],
    "killed": ["rank while saving", "raylet"],
    "stopped": ["hang", "driver"],
}
OF_CI = "killed and spoilt"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="module")
def untouched(workplace: Path) -> Trace:
    return trace_of(tell(workplace, "untouched", [], random.Random(0)).run)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == OF_CI else pytest.mark.exhaustive) for n in STORIES],
)
def test_a_run_ends_as_if_nothing_had_been(workplace: Path, untouched: Trace, name: str):
    luck = random.Random(name)
    story = tell(
        workplace, name.replace(" ", "-"), [(kind, EVERY[kind]) for kind in STORIES[name]], luck
    )
    assert len(story.happened) == len(STORIES[name])
    assert trace_of(story.run) == untouched, story.happened


@pytest.fixture
def on_a_small_disk(workplace: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    with small_disk(workplace / "runs"):
        yield


def test_a_full_disk_is_waited_for(workplace: Path, untouched: Trace, on_a_small_disk: None):
    story = tell(workplace, "full", [("full disk", EVERY["full disk"])], random.Random(1))
    assert len(story.happened) == 1
    assert story.resumes == 0
    assert trace_of(story.run) == untouched, story.happened
