"""Runs as jobs of a real SLURM on several machines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chaos.stories import Trace, trace_of

from lab.lab import ENDS, Lab, wait_until
from lab.runs import STEPS, events_of, steps_of
from lab.slurm_jobs import (
    JOB,
    assert_nothing_left,
    held_back,
    hold_back,
    log_of,
    processes_of,
    shoal,
    submit,
    wait_for_end,
    wait_for_step,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]


def test_a_run_on_both_nodes_is_stopped_preempted_and_ends(
    lab: Lab, workplace: Path, untouched: Trace
):
    """It is handed in again after the stop, and queued again by SLURM after the preemption."""
    run, job = submit(lab, workplace, "both")
    wait_for_step(run, 5)
    with held_back(lab, run):
        ranks = [len(processes_of(machine, "RayTrainWorker")) for machine in lab.machines]
        assert sorted(ranks) == [0, 1, 1]
        assert "running" in shoal(lab, workplace, "ps")
        shoal(lab, workplace, "stop", "both")
    assert wait_for_end(lab, run, job) == "CANCELLED"
    assert f"both (slurm job {job}): stopped" in shoal(lab, workplace, "status", "both")
    assert_nothing_left(lab)
    done = steps_of(run)
    assert 5 <= done < STEPS - 100  # enough is left to be preempted

    again = shoal(lab, workplace, "resume", "both").split()[-1]
    wait_for_step(run, done + 5)
    urgent = lab.submit("--partition=urgent", "--nodes=3", "--exclusive", "--wrap=sleep 5")
    hold_back(lab, run, lambda: events_of(run).count("stopping") == 2)
    lab.wait_for_job(urgent)
    assert wait_for_end(lab, run, again) == "COMPLETED", log_of(run)
    assert int(lab.job(again)["Restarts"]) >= 1
    assert events_of(run).count("started") >= 3
    assert trace_of(run) == untouched
    assert f"both (slurm job {again}): finished" in shoal(lab, workplace, "status", "both")
    assert shoal(lab, workplace, "logs", "both") == log_of(run)
    assert_nothing_left(lab)


def test_a_run_goes_on_after_its_time_limit(lab: Lab, workplace: Path, untouched: Trace):
    """SLURM's own clock, which counts minutes; the run is held back until it strikes."""
    run, job = begin_before_the_limit(lab, workplace)
    hold_back(lab, run, lambda: "stopping" in events_of(run))
    wait_until(lambda: is_queued_again(lab, job) or lab.job(job)["JobState"] in ENDS)
    assert is_queued_again(lab, job), log_of(run)
    # What is left of a slow run may need more than one start of that length.
    more = ["scontrol", "update", f"jobid={job}", "timelimit=60"]
    wait_until(lambda: lab.control.run(more, check=False).returncode == 0)
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    assert trace_of(run) == untouched
    assert_nothing_left(lab)


def begin_before_the_limit(lab: Lab, workplace: Path) -> tuple[Path, str]:
    """A run that has done some steps before its limit comes near. To begin takes half a minute, on
    a busy machine longer than the least limit there is."""
    for minutes in (2, 4, 8):
        options = [f"slurm.time={minutes}", "slurm.signal_s=20"]
        run, job = submit(lab, workplace, f"limited_{minutes}", *options)
        wait_until(
            lambda run=run, job=job: steps_of(run) >= 20 or is_queued_again(lab, job),
            why=lambda run=run: log_of(run),
        )
        if not is_queued_again(lab, job):
            return run, job
        lab.control.run(["scancel", job])
        lab.wait_for_job(job, "CANCELLED")
    raise AssertionError(log_of(run))


def is_queued_again(lab: Lab, job: str) -> bool:
    return lab.job(job)["Restarts"] != "0"


@pytest.mark.slow
def test_a_sweep(lab: Lab, workplace: Path, untouched: Trace):
    """Three runs as one job array, two at a time; one of them is stopped, and goes on alone."""
    sweep = ["--sweep", "adapter.r=2,4,8", "--at-most", "2"]
    more = ["slurm.nodes=1", "storage.cache=cache_of_the_sweep"]
    told = shoal(lab, workplace, "submit", "tiny.yaml", "name=sweep", *JOB, *more, *sweep)
    rows = re.findall(r"(sweep_r=(\d)) +(\d+_(\d)) +(\d)", told)
    assert [(r, number, value) for _, r, _, number, value in rows] == [
        ("2", "0", "2"),
        ("4", "1", "4"),
        ("8", "2", "8"),
    ], told
    runs = [workplace / "runs" / row[0] for row in rows]
    array = [row[2] for row in rows]
    # At once: on a busy machine the first may have ended when the second takes its first step.
    wait_until(
        lambda: "JobArrayTaskLimit" in shoal(lab, workplace, "status", runs[2].name),
        why=lambda: shoal(lab, workplace, "status", runs[2].name),
    )
    wait_for_step(runs[1], 1)
    with held_back(lab, runs[1]):
        shoal(lab, workplace, "stop", runs[1].name)
    assert wait_for_end(lab, runs[1], array[1]) == "CANCELLED"
    again = shoal(lab, workplace, "resume", runs[1].name).split()[-1]
    jobs = [array[0], again, array[2]]
    ends = [wait_for_end(lab, run, job) for run, job in zip(runs, jobs, strict=True)]
    assert ends == ["COMPLETED"] * 3, "\n".join(map(log_of, runs))
    assert trace_of(runs[1]) == untouched
    assert len({trace_of(run).losses for run in runs}) == 3
    assert sum("\nPrepared " in log_of(run) for run in runs) == 1
    listed = shoal(lab, workplace, "ps")
    assert [bool(re.search(rf"{run.name} .*finished", listed)) for run in runs] == [True] * 3
    assert_nothing_left(lab)


def test_a_job_that_is_cancelled_leaves_nothing(lab: Lab, workplace: Path):
    run, job = submit(lab, workplace, "cancelled")
    wait_for_step(run, 20)
    lab.control.run(["scancel", job])
    assert wait_for_end(lab, run, job) == "CANCELLED"
    assert_nothing_left(lab)
    assert "stopped" in shoal(lab, workplace, "status", "cancelled")
