"""Runs as jobs of a real SLURM on several machines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from chaos.stories import Trace, trace_of

from lab.init import PRIVATE
from lab.lab import Lab, wait_until
from lab.machine import Machine
from lab.runs import SHOAL, events_of, steps_of

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

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
        240,
        lambda: f"step {step} was not reached:\n{log_of(run)}",
    )


def wait_for_end(lab: Lab, run: Path, job: str) -> str:
    """The state of a job that has ended."""
    try:
        return lab.wait_for_job(job, timeout_s=400)["JobState"]
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log_of(run)}") from error


def wait_for_event(run: Path, kind: str, count: int = 1) -> None:
    wait_until(
        lambda: events_of(run).count(kind) >= count,
        240,
        lambda: f"{kind} did not happen:\n{log_of(run)}",
    )


def hold_back(lab: Lab, run: Path, until: Callable[[], bool]) -> None:
    """Let a run do no more than a few steps until something is so."""
    end = time.monotonic() + 300
    while not until():
        assert time.monotonic() < end, log_of(run)
        ranks = [p for machine in lab.machines for p in processes_of(machine, "RayTrainWorker")]
        for seconds, send in ((2, psutil.Process.suspend), (0.05, psutil.Process.resume)):
            for rank in ranks:
                with suppress(psutil.NoSuchProcess):
                    send(rank)
            time.sleep(seconds)


def processes_of(machine: Machine, part: str) -> list[psutil.Process]:
    """Those on a machine whose command holds this text."""
    found = []
    for process in machine.processes(of_services=True):
        with suppress(psutil.NoSuchProcess):
            if part in " ".join(process.cmdline()):
                found.append(process)
    return found


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


def test_a_run_goes_on_after_its_time_limit(lab: Lab, workplace: Path, untouched: Trace):
    """SLURM's own clock, which counts minutes; the run is held back until it strikes."""
    run, job = submit(lab, workplace, "limited", "slurm.time=3", "slurm.signal_s=20")
    wait_for_step(run, 20)
    hold_back(lab, run, lambda: "stopping" in events_of(run))
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    assert int(lab.job(job)["Restarts"]) >= 1
    assert trace_of(run) == untouched
    assert_nothing_left(lab)


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
        30,
        lambda: shoal(lab, workplace, "status", runs[2].name),
    )
    wait_for_step(runs[1], 1)
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


# Of which size a run is, and which of its nodes is lost; CI has the time for one.
LOSSES = [
    pytest.param("2", 0, id="fixed-first", marks=pytest.mark.slow),
    pytest.param("2", 1, id="fixed-other", marks=pytest.mark.slow),
    pytest.param("[1,2]", 0, id="elastic-first"),
    pytest.param("[1,2]", 1, id="elastic-other", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("workers", "which"), LOSSES)
def test_a_node_dies(lab: Lab, workplace: Path, untouched: Trace, workers: str, which: int):
    """Its job gets another node, unless the run can do without: with fewer workers, to rounding."""
    name = f"dead_{which}_{len(workers)}"
    run, job = submit(lab, workplace, name, f"cluster.workers={workers}")
    wait_for_step(run, 50)
    lab.machines[which].power_off()
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    lives_on = workers != "2" and which == 1
    assert int(lab.job(job)["Restarts"]) == (0 if lives_on else 1)
    # SLURM knows that the node is down, and gives it to nobody.
    assert lab.job(job)["ExcNodeList"] == "(null)"
    assert "excluded" not in events_of(run)
    found = trace_of(run)
    assert found.ledger == untouched.ledger
    assert lives_on or found == untouched
    assert_nothing_left(lab)


def test_a_node_that_failed_is_not_given_again(lab: Lab, workplace: Path, untouched: Trace):
    """SLURM sees nothing wrong with it, and would give it again: its part of the run was killed."""
    run, job = submit(lab, workplace, "bad", "failure.wait_s=1")
    wait_for_step(run, 50)
    bad = names_of(lab, job)[1]
    for process in processes_of(machine_of(lab, bad), "shoal node"):
        process.kill()
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    told = lab.job(job)
    assert (told["Restarts"], told["ExcNodeList"]) == ("1", bad)
    assert bad not in names_of(lab, job)
    assert events_of(run).count("excluded") == 1
    assert f"Queuing again without {bad}\n" in log_of(run)
    assert trace_of(run) == untouched
    assert_nothing_left(lab)


@pytest.mark.slow
def test_a_bad_node_is_given_again_where_there_is_no_other(
    lab: Lab, workplace: Path, untouched: Trace
):
    run, job = submit(lab, workplace, "all", "slurm.exclude=[n3]", "failure.wait_s=1")
    wait_for_step(run, 50)
    for process in processes_of(machine_of(lab, names_of(lab, job)[1]), "shoal node"):
        process.kill()
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    assert lab.job(job)["ExcNodeList"] == "n3"
    assert "needs 2 nodes, and of the others in main 1 can do the work" in log_of(run)
    assert "not_excluded" in events_of(run)
    assert trace_of(run) == untouched


@pytest.mark.slow
def test_ray_is_renewed_without_a_node_that_is_gone(lab: Lab, workplace: Path, untouched: Trace):
    run, job = submit(lab, workplace, "renewed", "cluster.workers=[1,2]")
    wait_for_step(run, 50)
    first, other = [machine_of(lab, name) for name in names_of(lab, job)]
    for process in processes_of(other, "shoal node"):
        process.kill()
    wait_for_event(run, "attempt", 2)
    wait_for_step(run, 80)
    for process in processes_of(first, "gcs_server"):
        process.kill()
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    assert lab.job(job)["Restarts"] == "0"
    _, died, afterwards = log_of(run).partition("Ray on this machine has died")
    assert died
    assert "Waiting for nodes" not in afterwards
    assert trace_of(run).ledger == untouched.ledger
    assert_nothing_left(lab)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "which"), LOSSES)
def test_a_node_without_slurmd(
    lab: Lab, workplace: Path, untouched: Trace, workers: str, which: int
):
    """What runs there runs on, while SLURM takes it for dead: an elastic job goes on as it is, one
    of fixed size begins once more elsewhere, after the first start has saved and stopped."""
    name = f"no_slurmd_{which}_{len(workers)}"
    run, job = submit(lab, workplace, name, f"cluster.workers={workers}")
    wait_for_step(run, 50)
    machine = machine_of(lab, names_of(lab, job)[which])
    try:
        for process in machine.processes(of_services=True):
            if process.name() == "slurmd":
                process.kill()
        hold_back(lab, run, lambda: machine.name not in names_of(lab, job))
        assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
        assert lab.job(job)["Restarts"] == ("1" if workers == "2" else "0")
        assert trace_of(run) == untouched
        wait_until(lambda: not of_runs(lab), 60, lambda: f"left: {of_runs(lab)}")
    finally:
        machine.power_off()
        machine.start()


def of_runs(lab: Lab) -> list[list[str]]:
    """What is left of runs on any node. A step's slurmstepd waits for its slurmd to come back."""
    return [
        process.cmdline()
        for machine in lab.machines
        for process in machine.processes()
        if "slurmstepd" not in process.name()
    ]


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


def test_a_base_that_one_node_has_for_itself_is_refused(lab: Lab, workplace: Path):
    lab.machines[0].run(["cp", "-r", workplace / "llama", f"{PRIVATE}/llama"])
    run, job = submit(lab, workplace, "own_base", f"base.source={PRIVATE}/llama")
    assert wait_for_end(lab, run, job) == "FAILED"
    told = f"base.source = {PRIVATE}/llama: {PRIVATE}/llama is not the same on n2 (No such file"
    assert told in log_of(run)
    assert "attempt" not in events_of(run)


def test_each_node_gets_one_copy_of_the_base_and_the_secrets_that_are_named(
    lab: Lab, workplace: Path
):
    """Two workers on each of two nodes. The job tells how often it sees each variable."""
    shell = {"HF_TOKEN": "hf_secretOfATest", "API_KEY": "key-of-a-test", "PLAIN": "plain"}
    seen = "; ".join(f"echo {name} $(env | grep -c ^{name}=)" for name in shell)
    more = [
        f"base.copy_to={PRIVATE}/disk",
        "cluster.env=[HF_TOKEN]",
        "cluster.workers=4",
        "slurm.cpus_per_node=2",
        "train.steps=20",
        f"slurm.setup=['{seen}']",
    ]
    command = [SHOAL, "submit", "tiny.yaml", "name=copies", *JOB, *more]
    told = lab.control.run(command, cwd=workplace, env=shell).stdout
    job = told.split("slurm job ")[1].split(";")[0]
    run = workplace / "runs" / "copies"
    assert wait_for_end(lab, run, job) == "COMPLETED", log_of(run)
    assert "HF_TOKEN 1\nAPI_KEY 0\nPLAIN 1\n" in log_of(run)
    logs = [file.read_text() for file in (run / "logs").glob("rank_*.log")]
    assert [len(logs), sum("Copied the base to" in text for text in logs)] == [4, 2]
    copies = [list(m.private.glob("disk/shoal-base-*/model.safetensors")) for m in lab.machines]
    assert sorted(map(len, copies)) == [0, 1, 1]
    for file in [file for file in workplace.rglob("*") if file.is_file()]:
        text = file.read_bytes()
        assert not any(shell[name].encode() in text for name in ("HF_TOKEN", "API_KEY")), file
