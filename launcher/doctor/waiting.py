"""Waiting for a doctor's job, whose states are told as they change."""

from __future__ import annotations

import time

from cluster.job import Job, JobState
from cluster.schedulers import scheduler
from launcher.terminal import Display

_POLL_S = 2.0


def wait_for_end(job: Job, display: Display) -> JobState:
    """The job's state once it has ended. Raises `ClusterError` when it cannot be asked for."""
    display.line(f"Handed in as {job.kind} job {job.id}; Ctrl-C cancels it")
    told = ""
    while True:
        (state,) = scheduler(job.kind).states([job])
        now = " ".join(part for part in (state.phase, state.why or state.nodes) if part)
        if now != told:
            told = now
            display.line(f"{job.kind} job {job.id}: {told}")
        if state.phase == "ended":
            return state
        time.sleep(_POLL_S)
