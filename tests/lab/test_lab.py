"""Machines of the lab are as apart as machines are, and SLURM is one over all of them."""

from __future__ import annotations

import signal
import subprocess

import pytest

from lab.init import PRIVATE, SERVICES
from lab.lab import Lab, wait_until
from lab.machine import CommandFailed, Machine
from lab.slurm_jobs import processes_of

pytestmark = pytest.mark.slurm


def reaches(one: Machine, other: Machine) -> bool:
    """Whether `one` can connect to the slurmd of `other`, by its name."""
    program = f"import socket; socket.create_connection(({other.name!r}, 6818), timeout=2)"
    return one.run(["python", "-c", program], check=False).returncode == 0


def test_a_job_over_two_nodes(lab: Lab) -> None:
    job = lab.submit("--nodes=2", "--output=two.out", "--wrap=srun hostname")
    assert lab.wait_for_job(job)["JobState"] == "COMPLETED"
    assert sorted((lab.shared / "two.out").read_text().split()) == ["n1", "n2"]


def test_a_job_gets_the_gpus_it_asked_for_and_keeps_its_exit_status(lab: Lab) -> None:
    script = "--wrap=echo $CUDA_VISIBLE_DEVICES; exit 7"
    job = lab.submit("--gpus-per-node=2", "--output=gpus.out", script)
    ended = lab.wait_for_job(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "7:0")
    assert (lab.shared / "gpus.out").read_text() == "0,1\n"


def test_a_cancelled_job_takes_its_daemons_with_it(lab: Lab) -> None:
    job = lab.submit("--nodelist=n2", "--wrap=setsid sleep 1234 & wait")
    n2 = lab.machines[1]
    wait_until(lambda: bool(processes_of(n2, "sleep 1234")))
    lab.control.run(["scancel", job])
    lab.wait_for_job(job, "CANCELLED")
    wait_until(lambda: not n2.processes())


def test_files_are_shared_or_a_machines_own(lab: Lab) -> None:
    for machine in lab.machines:
        machine.run(["sh", "-c", f"hostname > {PRIVATE}/who; hostname >> who; touch /dev/shm/x"])
    names = [machine.name for machine in lab.machines]
    assert (lab.shared / "who").read_text().split() == names
    assert [(m.private / "who").read_text().strip() for m in lab.machines] == names
    assert [machine.shared_memory() for machine in lab.machines] == [["x"]] * len(names)
    (lab.machines[0].path("/dev/shm/x")).unlink()
    assert lab.machines[0].shared_memory() == []
    full = ["dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", f"count={lab.hardware.shm_mb + 1}"]
    with pytest.raises(CommandFailed, match="No space left"):
        lab.machines[0].run(full)


def test_commands_are_like_those_over_ssh(lab: Lab) -> None:
    n1 = lab.machines[0]
    done = n1.run(["sh", "-c", "pwd; echo $A; exit 3"], env={"A": "b"}, check=False)
    assert (done.returncode, done.stdout) == (3, f"{lab.shared}\nb\n")
    with pytest.raises(CommandFailed, match=r"n1: `sleep 99` had not ended after 0.2 s"):
        n1.run(["sleep", "99"], timeout_s=0.2)
    wait_until(lambda: not n1.processes(), 60)
    script = 'trap "echo told; exit 4" USR1; echo ready; while :; do sleep 0.05; done'
    command = n1.popen(["bash", "-c", script], stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    n1.signal(command, signal.SIGUSR1)
    assert command.communicate(timeout=120)[0] == "told\n"
    assert command.returncode == 4


def test_a_cut_machine_is_reached_by_nobody_until_it_is_healed(lab: Lab) -> None:
    n1, n2, n3 = lab.machines
    assert reaches(n1, n2)
    lab.cut(n2)
    assert not reaches(n1, n2)
    assert not reaches(n2, n3)
    assert reaches(n1, n3)
    assert n2.run(["hostname"]).stdout == "n2\n"
    lab.heal(n2)
    wait_until(lambda: reaches(n1, n2))


def test_a_machine_without_power_is_down_until_it_is_started_again(lab: Lab) -> None:
    n1, _, n3 = lab.machines
    n3.run(["sh", "-c", f"echo kept > {PRIVATE}/disk; echo lost > /dev/shm/memory"])
    commands = [n3.popen(["sleep", "1000"]) for _ in range(2)]
    wait_until(lambda: len(n3.processes()) == 2)
    running = n3.processes(of_services=True)
    n3.power_off()
    assert not any(process.is_running() for process in running)
    assert [command.wait(120) for command in commands] == [-signal.SIGKILL] * 2
    assert not reaches(n1, n3)
    wait_until(lambda: lab.node_states()["n3"].startswith("down"))
    wait_until(lambda: {lab.node_states()["n1"], lab.node_states()["n2"]} == {"idle"})
    n3.start()
    wait_until(lambda: lab.node_states()["n3"] == "idle")
    assert (n3.private / "disk").read_text() == "kept\n"
    assert n3.shared_memory() == []


def test_control_remembers_jobs_over_a_loss_of_power(lab: Lab) -> None:
    job = lab.submit("--wrap=sleep 1000")
    lab.wait_for_job(job, "RUNNING")
    # It writes what it knows some seconds later; of a job it knows as pending it would start a
    # second copy, which the node refuses.
    lab.control.run(["scontrol", "update", f"jobid={job}", "comment=written"])
    state = lab.control.path(f"{SERVICES}/state/job_state")
    wait_until(lambda: b"written" in state.read_bytes())
    lab.control.power_off()
    lab.control.start()
    lab.wait_until_control_answers()
    known = lab.job(job)
    assert (known["JobState"], known["Restarts"]) == ("RUNNING", "0")


def test_a_lab_that_settles_is_as_new(lab: Lab) -> None:
    n1, n2, n3 = lab.machines
    job = lab.submit("--wrap=setsid sleep 1000 & wait")
    waiting = lab.submit("--nodes=3", "--exclusive", "--wrap=sleep 1000")
    n1.popen(["sh", "-c", f"mkdir {PRIVATE}/x; touch {PRIVATE}/x/y /dev/shm/z; sleep 1000"])
    wait_until(lambda: n1.shared_memory() == ["z"])
    lab.control.run(["scontrol", "update", "nodename=n2", "state=drain", "reason=test"])
    lab.cut(n3)
    lab.settle()
    assert {lab.job(each)["JobState"] for each in (job, waiting)} == {"CANCELLED"}
    assert [n1.processes(), n1.shared_memory(), list(n1.private.iterdir())] == [[], [], []]
    assert set(lab.node_states().values()) == {"idle"}
    assert reaches(n2, n3)
