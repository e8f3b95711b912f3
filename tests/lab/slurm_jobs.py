"""Runs as jobs of a lab's SLURM, and what tests look at of them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from lab.lab import PATIENCE_S, Lab, wait_until
from lab.machine import Machine
from lab.runs import SHOAL, events_of, steps_of

JOB = ["cluster.kind=slurm", "slurm.nodes=2", "slurm.partition=main", "slurm.exclusive=true"]


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
    wait_until(
        lambda: steps_of(run) >= step,
        why=lambda: f"step {step} was not reached:\n{log_of(run)}",
    )


def wait_for_end(lab: Lab, run: Path, job: str) -> str:
    """The state of a job that has ended."""
    try:
        return lab.wait_for_job(job)["JobState"]
    except (AssertionError, TimeoutError) as error:
        raise AssertionError(f"{error}\n{log_of(run)}") from error


def wait_for_event(run: Path, kind: str, count: int = 1) -> None:
    wait_until(
        lambda: events_of(run).count(kind) >= count,
        why=lambda: f"{kind} did not happen:\n{log_of(run)}",
    )


def hold_back(lab: Lab, run: Path, until: Callable[[], bool]) -> None:
    """Let a run do a step now and then until something is so: whole steps, however slow they are,
    or it would be taken for one that hangs."""
    end = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < end, log_of(run)
        ranks = [p for machine in lab.machines for p in processes_of(machine, "RayTrainWorker")]
        try:
            _send(psutil.Process.suspend, ranks)
            time.sleep(3)
        finally:
            _send(psutil.Process.resume, ranks)
        done, moved = steps_of(run), time.monotonic() + 5  # it may have no step to do
        while steps_of(run) == done and time.monotonic() < moved:
            time.sleep(0.02)


def _send(signal: Callable[[psutil.Process], None], processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            signal(process)


@contextmanager
def held_back(lab: Lab, run: Path) -> Iterator[None]:
    """A run does no more than a few steps meanwhile."""
    over = threading.Event()
    holding = threading.Thread(target=hold_back, args=(lab, run, over.is_set))
    holding.start()
    try:
        yield
    finally:
        over.set()
        holding.join()


def command_of(process: psutil.Process) -> list[str]:
    """Empty when it has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def processes_of(machine: Machine, part: str) -> list[psutil.Process]:
    """Those on a machine whose command holds this text."""
    every = machine.processes(of_services=True)
    return [process for process in every if part in " ".join(command_of(process))]


def machine_of(lab: Lab, name: str) -> Machine:
    return next(machine for machine in lab.machines if machine.name == name)


def log_of(run: Path) -> str:
    file = run / "logs" / "slurm.log"
    return file.read_text() if file.exists() else "no log"


def names_of(lab: Lab, job: str) -> list[str]:
    """The nodes of a job, the first first."""
    listed = ["scontrol", "show", "hostnames", lab.job(job)["NodeList"]]
    return lab.control.run(listed).stdout.split()


def assert_nothing_left(lab: Lab) -> None:
    """No process of the job, no shared memory and no folder of Ray, on any node that is on."""
    on = [machine for machine in lab.machines if machine.is_on]
    wait_until(lambda: not any(machine.processes() for machine in on), 90)
    assert [machine.shared_memory() for machine in on] == [[] for _ in on]


def of_runs(lab: Lab) -> list[list[str]]:
    """What is left of runs on any node. A step's slurmstepd waits for its slurmd to come back."""
    return [
        command
        for machine in lab.machines
        for command in map(command_of, machine.processes())
        if command and "slurmstepd" not in command[0]
    ]
