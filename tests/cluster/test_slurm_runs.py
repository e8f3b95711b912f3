"""Runs as jobs of a real SLURM on several machines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.stories import Trace, trace_of
from chaos.workplace import make_workplace

from lab.init import PRIVATE
from lab.lab import Lab, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

SHOAL = str(Path(sys.executable).parent / "shoal")
JOB = ["cluster.kind=slurm", "slurm.nodes=2", "slurm.partition=main", "slurm.exclusive=true"]
STEPS = 300


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("slurm"), steps=STEPS)


@pytest.fixture(scope="module")
def untouched(workplace: Path) -> Trace:
    """The same run on this machine alone, with as many workers."""
    subprocess.run([SHOAL, "run", "tiny.yaml", "name=untouched"], cwd=workplace, check=True)
    return trace_of(workplace / "runs" / "untouched")


def shoal(lab: Lab, workplace: Path, *arguments: str, check: bool = True) -> str:
    """What a command prints that is given on `control`, in the workplace."""
    done = lab.control.run([SHOAL, *arguments], cwd=workplace, check=check)
    return done.stdout + done.stderr


def submit(lab: Lab, workplace: Path, name: str, *more: str) -> tuple[Path, str]:
    """The folder and the job of a new run."""
    told = shoal(lab, workplace, "submit", "tiny.yaml", f"name={name}", *JOB, *more)
    found = re.match(rf"Submitted {name} as slurm job (\d+); it lies in (.+)\n", told)
    assert found is not None, told
    return Path(found[2]), found[1]


def wait_for_step(run: Path, step: int) -> None:
    metrics = run / "metrics.jsonl"
    wait_until(
        lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= step,
        240,
        lambda: f"step {step} was not reached:\n{log_of(run)}",
    )


def wait_for_end(lab: Lab, run: Path, job: str) -> str:
    """The state of a job that has ended."""
    try:
        return lab.wait_for_job(job, timeout_s=400)["JobState"]
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log_of(run)}") from error


def log_of(run: Path) -> str:
    file = run / "logs" / "slurm.log"
    return file.read_text() if file.exists() else "no log"


def events_of(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def assert_nothing_left(lab: Lab) -> None:
    """No process of the job, no shared memory and no folder of Ray, on any node that is on."""
    on = [machine for machine in lab.machines if machine.is_on]
    wait_until(lambda: not any(machine.processes() for machine in on), 30)
    assert [machine.shared_memory() for machine in on] == [[] for _ in on]


def test_both_nodes_train(lab: Lab, workplace: Path, untouched: Trace):
    run, job = submit(lab, workplace, "both")
    wait_for_step(run, 1)
    ranks = [
        sum("RayTrainWorker" in "".join(process.cmdline()) for process in machine.processes())
        for machine in lab.machines
    ]
    assert sorted(ranks) == [0, 1, 1]
    assert "running" in shoal(lab, workplace, "ps")
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    assert trace_of(run) == untouched
    assert f"both (slurm job {job}): finished" in shoal(lab, workplace, "status", "both")
    assert shoal(lab, workplace, "logs", "both") == log_of(run)
    assert_nothing_left(lab)


def test_a_run_that_is_stopped_goes_on(lab: Lab, workplace: Path, untouched: Trace):
    run, job = submit(lab, workplace, "stopped")
    wait_for_step(run, 50)
    shoal(lab, workplace, "stop", "stopped")
    assert wait_for_end(lab, run, job) == "CANCELLED"
    assert "stopped (slurm job" in shoal(lab, workplace, "status", "stopped")
    assert_nothing_left(lab)
    again = shoal(lab, workplace, "resume", "stopped").split()[-1]
    assert wait_for_end(lab, run, again) == "COMPLETED", log_of(run)
    assert trace_of(run) == untouched


def test_a_run_that_is_preempted_queues_again(lab: Lab, workplace: Path, untouched: Trace):
    run, job = submit(lab, workplace, "preempted")
    wait_for_step(run, 50)
    urgent = lab.submit("--partition=urgent", "--nodes=3", "--exclusive", "--wrap=sleep 5")
    lab.wait_for_job(urgent, timeout_s=120)
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    assert int(lab.job(job)["Restarts"]) >= 1
    assert "stopped" in events_of(run)
    assert trace_of(run) == untouched


def test_a_job_that_is_cancelled_leaves_nothing(lab: Lab, workplace: Path):
    run, job = submit(lab, workplace, "cancelled")
    wait_for_step(run, 20)
    lab.control.run(["scancel", job])
    assert wait_for_end(lab, run, job) == "CANCELLED"
    assert_nothing_left(lab)
    assert "stopped" in shoal(lab, workplace, "status", "cancelled")


@pytest.mark.parametrize("which", [0, 1], ids=["first", "other"])
@pytest.mark.parametrize("workers", ["2", "[1,2]"], ids=["fixed", "elastic"])
def test_a_node_dies(lab: Lab, workplace: Path, untouched: Trace, which: int, workers: str):
    """Its job gets another node, unless the run can do without: with fewer workers, to rounding."""
    name = f"dead_{which}_{len(workers)}"
    run, job = submit(lab, workplace, name, f"cluster.workers={workers}")
    wait_for_step(run, 50)
    lab.machines[which].power_off()
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    lives_on = workers != "2" and which == 1
    assert int(lab.job(job)["Restarts"]) == (0 if lives_on else 1)
    found = trace_of(run)
    assert found.ledger == untouched.ledger
    assert lives_on or found == untouched
    assert_nothing_left(lab)


def test_a_cluster_that_does_not_form_is_told(lab: Lab, workplace: Path):
    run, job = submit(lab, workplace, "unformed", "slurm.shoal=/no/such/shoal")
    assert wait_for_end(lab, run, job) == "FAILED"
    told = shoal(lab, workplace, "status", "unformed")
    assert "not formed" in told
    assert events_of(run) == ["submitted"]


def test_a_folder_that_each_node_has_for_itself_is_refused(lab: Lab, workplace: Path):
    run, job = submit(lab, workplace, "apart", f"storage.cache={PRIVATE}/cache")
    assert wait_for_end(lab, run, job) == "FAILED"
    told = shoal(lab, workplace, "status", "apart")
    assert "failed" in told
    assert f"storage.cache = {PRIVATE}/cache: cannot be used on n2" in log_of(run)
    assert "attempt" not in events_of(run)
    assert not any((machine.private / "cache" / "prepared").exists() for machine in lab.machines)


def test_folders_of_the_same_name_are_told_apart(lab: Lab, workplace: Path):
    for machine in lab.machines:
        machine.run(["mkdir", "-p", f"{PRIVATE}/own"])
    run, job = submit(lab, workplace, "own", f"storage.cache={PRIVATE}/own")
    assert wait_for_end(lab, run, job) == "FAILED"
    assert "does not see what" in log_of(run) and "a folder of its own" in log_of(run)
    left = [path for machine in lab.machines for path in machine.private.rglob(".shoal-*")]
    assert left == []
