"""Runs as jobs of a real SLURM on several machines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from chaos.stories import trace_of
from chaos.workplace import make_workplace

from lab.lab import Lab, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

SHOAL = str(Path(sys.executable).parent / "shoal")
JOB = ["cluster.kind=slurm", "slurm.nodes=2", "slurm.partition=main"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("slurm"), steps=60)


def shoal(lab: Lab, workplace: Path, *arguments: str, timeout_s: float = 60, check: bool = True):
    """A command given on `control`, in the workplace."""
    return lab.control.run([SHOAL, *arguments], cwd=workplace, timeout_s=timeout_s, check=check)


def submit(lab: Lab, workplace: Path, name: str, *more: str) -> tuple[Path, str]:
    told = shoal(lab, workplace, "submit", "tiny.yaml", f"name={name}", *JOB, *more).stdout
    return workplace / "runs" / name, told.split(" job ")[1].split(";")[0]


def assert_nothing_left(lab: Lab) -> None:
    """No process of the job, and no shared memory, on any node."""
    wait_until(lambda: not any(machine.processes() for machine in lab.machines), 30)
    assert [machine.shared_memory() for machine in lab.machines] == [[], [], []]


def test_both_nodes_train(lab: Lab, workplace: Path):
    run, job = submit(lab, workplace, "both")
    assert lab.wait_for_job(job, timeout_s=300)["JobState"] == "COMPLETED", (
        run / "logs" / "slurm.log"
    ).read_text()
    assert len(trace_of(run).losses) == 60
    assert_nothing_left(lab)
