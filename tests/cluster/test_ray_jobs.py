"""Runs as jobs of a Ray cluster on several machines, handed in from another machine."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.stories import Trace, trace_of

from lab.lab import Lab, wait_until
from lab.ray_cluster import RayCluster
from lab.runs import SHOAL, STEPS, assert_nothing_left, events_of, steps_of
from lab.slurm_jobs import command_of, held_back

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]


@pytest.fixture
def cluster(lab: Lab) -> Iterator[RayCluster]:
    # A core each, so that two workers are on two machines.
    with RayCluster(lab, lab.machines[:2], cpus=1, dashboard=True) as cluster:
        yield cluster
        assert_nothing_left(cluster)


class Submitter:
    """A person at a machine outside of the cluster."""

    def __init__(self, lab: Lab, cluster: RayCluster, folder: Path) -> None:
        self._machine = lab.control
        self._cluster = cluster
        self._folder = folder

    def shoal(self, *arguments: str, check: bool = True) -> str:
        done = self._cluster.on(
            self._machine, [SHOAL, *arguments], cwd=self._folder, timeout_s=600, check=check
        )
        return done.stdout + done.stderr

    def submit(self, name: str, *more: str) -> Path:
        """The folder here of a new run."""
        told = self.shoal("submit", "tiny.yaml", f"name={name}", *self.job, *more)
        found = re.match(rf"Submitted {name} as ray_job job {name}-\w+; it lies in (.+)\n", told)
        assert found is not None, told
        return Path(found[1])

    @property
    def job(self) -> list[str]:
        return [
            "cluster.kind=ray_job",
            f"cluster.address={self._cluster.dashboard_url}",
            f"ray_job.python={sys.executable}",
        ]

    def wait_for(self, run: str, state: str) -> None:
        wait_until(
            lambda: self.state(run) == state,
            why=lambda: f"{self.shoal('status', run)}\n{self.shoal('logs', run)}",
        )

    def state(self, run: str) -> str:
        """As `shoal status` calls it."""
        found = re.match(r".+?: ([a-z ]+?)(\.|\n|$)", self.shoal("status", run))
        assert found is not None
        return found[1]

    def ray_says(self, run: Path) -> str:
        """The state of the run's job in Ray."""
        job = json.loads((run / "job.json").read_text())
        program = (
            "import sys; from ray.job_submission import JobSubmissionClient; "
            "print(JobSubmissionClient(sys.argv[1]).get_job_status(sys.argv[2]).value)"
        )
        command = [sys.executable, "-c", program, job["address"], job["id"]]
        return self._cluster.on(self._machine, command).stdout.split()[-1]


@pytest.fixture
def person(lab: Lab, cluster: RayCluster, workplace: Path) -> Submitter:
    return Submitter(lab, cluster, workplace)


def wait_for_step(run: Path, step: int) -> None:
    wait_until(
        lambda: steps_of(run) >= step,
        why=lambda: f"step {step} was not reached in {run}",
    )


def test_a_job_on_both_machines_is_stopped_and_goes_on_to_the_same_end(
    lab: Lab, person: Submitter, untouched: Trace
):
    run = person.submit("both")
    wait_for_step(run, 30)
    with held_back(lab, run):
        assert "will save and stop" in person.shoal("stop", "both")
    person.wait_for("both", "stopped")
    assert person.ray_says(run) == "STOPPED"
    assert events_of(run)[-1] == "stopped"
    assert "ray_job job" in person.shoal("resume", "both")
    assert "step 300/300" in person.shoal("logs", "-f", "both")
    person.wait_for("both", "finished")
    assert person.ray_says(run) == "SUCCEEDED"
    assert trace_of(run) == untouched
    assert re.search(r"both +ray_job both-\w+ +finished +300", person.shoal("ps"))
    memory = [
        json.loads(line)
        for line in (run / "events.jsonl").read_text().splitlines()
        if '"event": "memory"' in line
    ]
    assert len(memory[-1]["ranks"]) == 2
    assert "does not run" in person.shoal("stop", "both", check=False)


@pytest.mark.slow
def test_a_fork_is_a_job_of_its_own(person: Submitter, workplace: Path, untouched: Trace):
    """Of a run of this machine alone, whose folder the cluster sees."""
    told = person.shoal(
        "resume", "untouched", "--fork", "name=forked", f"train.steps={STEPS + 20}", *person.job
    )
    assert "Submitted forked as ray_job job forked-" in told
    person.wait_for("forked", "finished")
    losses = trace_of(workplace / "runs" / "forked").losses
    assert losses[:STEPS] == untouched.losses
    assert len(losses) == STEPS + 20


@pytest.mark.slow
def test_the_doctor_goes_there_too(person: Submitter):
    done = person.shoal("doctor", "tiny.yaml", *person.job, "--json")
    report, _ = json.JSONDecoder().raw_decode(done, done.index("{"))
    assert report["status"] == 0
    assert sorted(node["node"] for node in report["nodes"]) == ["n1", "n2"]
    assert len(report["links"]) == 1


@pytest.mark.slow
def test_a_driver_that_is_killed_has_died(cluster: RayCluster, person: Submitter, untouched: Trace):
    run = person.submit("killed")
    wait_for_step(run, 30)
    [driver] = [
        process
        for machine in cluster.machines
        for process in machine.processes()
        if command_of(process)[1:] == ["-m", "launcher", "job"]
    ]
    driver.send_signal(signal.SIGKILL)
    person.wait_for("killed", "died")
    assert person.ray_says(run) == "FAILED"
    person.shoal("resume", "killed")
    person.wait_for("killed", "finished")
    assert trace_of(run) == untouched


@pytest.mark.slow
def test_a_machine_that_is_cut_off_is_named_and_another_takes_over(
    lab: Lab, workplace: Path, untouched: Trace
):
    with RayCluster(lab, lab.machines, cpus=1, dashboard=True) as cluster:
        person = Submitter(lab, cluster, workplace)
        run = person.submit("cut")
        wait_for_step(run, 30)
        lost = cluster.with_a_rank()
        lab.cut(lost)
        person.wait_for("cut", "finished")
        assert person.ray_says(run) == "SUCCEEDED"
        assert f"{lost.name}, the node of rank " in person.shoal("logs", "cut")
        assert events_of(run).count("fault") == 1
        assert trace_of(run) == untouched
        assert_nothing_left(cluster)


@pytest.mark.slow
def test_who_submits_need_not_see_the_storage(lab: Lab, workplace: Path):
    """Each machine has a /tmp of its own: only the cluster, one machine, sees what lies there."""
    where = ["storage.path=/tmp/own/runs", "storage.cache=/tmp/own/cache", "cluster.workers=1"]
    with RayCluster(lab, lab.machines[:1], dashboard=True) as alone:
        person = Submitter(lab, alone, workplace)
        record = person.submit("unseen", *where)
        assert record == Path("/tmp/own/runs/unseen")
        under_way = re.compile(r"step \d\d/300")  # not every step is told
        wait_until(lambda: under_way.search(person.shoal("logs", str(record))) is not None)
        person.shoal("stop", str(record))
        person.wait_for(str(record), "stopped")
        person.shoal("resume", str(record))
        assert "step 300/300" in person.shoal("logs", "-f", str(record))
        person.wait_for(str(record), "finished")

        there = alone.head.path(record)
        assert (there / "checkpoints" / "step_000300" / "manifest.json").is_file()
        assert events_of(there)[-1] == "finished"
        assert sorted(file.name for file in lab.control.path(record).iterdir()) == [
            ".key",
            "events.jsonl",
            "job.json",
            "recipe.yaml",
        ]

        lab.control.run(["rm", "-r", str(record)])
        person.submit("unseen", *where)
        person.wait_for(str(record), "failed")
        assert "is the folder of another run" in person.shoal("status", str(record))


@pytest.mark.slow
def test_code_can_be_sent_along(tmp_path: Path, person: Submitter):
    home = Path(__file__).parents[2]
    code = tmp_path / "code"
    for room in ("launcher", "trainer", "adapters", "recipes", "cluster"):
        shutil.copytree(home / room, code / room, ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "launcher" / "session.py").open("a") as stream:
        stream.write("\nprint('this is the code that was sent')\n")
    person.submit("sent", f"ray_job.code={code}", "train.steps=20", "cluster.workers=1")
    assert "this is the code that was sent" in person.shoal("logs", "-f", "sent")
    person.wait_for("sent", "finished")


def test_a_cluster_that_is_not_there_is_told(workplace: Path):
    command = [SHOAL, "submit", "tiny.yaml", "name=nobody", "cluster.kind=ray_job"]
    done = subprocess.run(
        [*command, "cluster.address=http://127.0.0.1:9"],
        cwd=workplace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Ray's Jobs API at http://127.0.0.1:9: Failed to connect" in done.stderr
    assert not (workplace / "runs" / "nobody").exists()
