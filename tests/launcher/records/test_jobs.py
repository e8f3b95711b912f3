"""What a run's state is called, from its scheduler's word and its own events."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.job import JobState
from launcher.records.jobs import told


def events(*kinds: str, **last: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"event": kind} for kind in kinds]
    if found:
        found[-1] |= last
    return found


RUNNING = JobState(phase="running", word="RUNNING", nodes="n[1-2]")
FAILED = JobState(phase="ended", word="FAILED", why="NonZeroExitCode")

SUCCEEDED = JobState(phase="ended", word="SUCCEEDED", exit_status=0)


def ray_failed(exit_status: int | None) -> JobState:
    return JobState(phase="ended", word="FAILED", why="out of memory", exit_status=exit_status)


@pytest.mark.parametrize(
    ("state", "happened", "word", "text"),
    [
        (JobState(phase="queued", word="PENDING", why="Resources"), ["submitted"], "queued", "Res"),
        (RUNNING, ["submitted"], "starting", "n[1-2]"),
        (RUNNING, ["submitted", "started"], "running", "n[1-2]"),
        (RUNNING, ["submitted", "started", "stopped", "started"], "running", "n[1-2]"),
        (FAILED, ["submitted"], "not formed", "before the run began: FAILED NonZeroExitCode"),
        (FAILED, ["submitted", "not_formed"], "not formed", ""),
        (FAILED, ["submitted", "started"], "died", "without a word: FAILED"),
        (FAILED, ["submitted", "started", "failed"], "failed", ""),
        (FAILED, ["submitted", "started", "finished", "submitted"], "not formed", "FAILED"),
        (
            JobState(phase="ended", word="CANCELLED"),
            ["submitted", "started"],
            "stopped",
            "its job was cancelled",
        ),
        (JobState(phase="unknown"), ["submitted", "started", "finished"], "finished", ""),
        (JobState(phase="unknown", why="not reached"), ["started"], "unknown", "not reached"),
        (SUCCEEDED, ["submitted", "started", "finished"], "finished", ""),
        # As seen by a submitter that does not see the run's folder:
        (SUCCEEDED, ["submitted"], "finished", ""),
        (ray_failed(1), ["submitted"], "failed", "out of memory"),
        (ray_failed(75), ["submitted"], "stopped", ""),
        (ray_failed(130), ["submitted"], "stopped", ""),
        (ray_failed(-9), ["submitted", "started"], "died", "without a word: FAILED out of memory"),
        (ray_failed(None), ["submitted"], "not formed", "before the run began: FAILED"),
        (JobState(phase="ended", word="STOPPED"), ["submitted", "started"], "stopped", ""),
        (JobState(phase="ended"), ["started", "interrupted"], "stopped", ""),
        (JobState(phase="ended"), ["started"], "died", "without a word"),
    ],
)
def test_words(state: JobState, happened: list[str], word: str, text: str):
    found = told(state, events(*happened))
    assert found.word == word
    assert text in found.text


def test_the_first_line_of_an_error_is_told():
    found = told(FAILED, events("submitted", "started", "failed", error="bad\nlines"))
    assert found.text == "bad"
