"""Nodes of jobs of a real SLURM: some are lost, some see other files, each gets what it needs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from chaos.stories import Trace, trace_of

from lab.init import PRIVATE
from lab.lab import Lab, wait_until
from lab.runs import SHOAL, events_of
from lab.slurm_jobs import (
    JOB,
    assert_nothing_left,
    hold_back,
    log_of,
    machine_of,
    names_of,
    of_runs,
    processes_of,
    shoal,
    submit,
    wait_for_end,
    wait_for_event,
    wait_for_step,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]


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
    lost, other = lab.machines[which], lab.machines[1 - which]
    # It hears of the end of the first node before SLURM does, and then asks SLURM.
    deaf = processes_of(other, "shoal node") if which == 0 else []
    for process in deaf:
        process.suspend()
    lost.power_off()
    wait_until(lambda: lab.node_states()[lost.name].startswith("down"))
    for process in deaf:
        with suppress(psutil.NoSuchProcess):
            process.resume()
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


@pytest.mark.slow
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
        wait_until(lambda: not of_runs(lab), 120, lambda: f"left: {of_runs(lab)}")
    finally:
        machine.power_off()
        machine.start()


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


@pytest.mark.slow
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


@pytest.mark.slow
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
