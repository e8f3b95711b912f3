"""Runs on a Ray cluster that is there already, over several machines, driven on the first."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chaos.stories import Trace, trace_of

from lab.init import PRIVATE
from lab.lab import Lab, wait_until
from lab.machine import ROOT
from lab.ray_cluster import PATIENT, RayCluster
from lab.runs import SHOAL, assert_nothing_left, steps_of
from launcher.records.runs import read_events

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

_ROOMS = ("recipes", "adapters", "trainer", "cluster", "launcher")


@dataclass(slots=True)
class Running:
    """A run under way on a cluster."""

    cluster: RayCluster
    folder: Path
    output: Path
    process: subprocess.Popen[str]

    @classmethod
    def begin(cls, cluster: RayCluster, workplace: Path, name: str, *more: str) -> Running:
        arguments = ["run", "tiny.yaml", f"name={name}", *more]
        return cls.of(cluster, workplace, name, arguments)

    @classmethod
    def of(cls, cluster: RayCluster, workplace: Path, name: str, arguments: list[str]) -> Running:
        output = workplace / f"{name}.log"
        command = [SHOAL, *arguments, "cluster.kind=ray", f"cluster.address={cluster.address}"]
        with output.open("ab") as log:
            process = cluster.popen(cluster.head, command, cwd=workplace, stdout=log.fileno())
        return cls(cluster, workplace / "runs" / name, output, process)

    def told(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or self.process.poll() is not None, why=self.told)
        assert condition(), self.told()

    def wait_for_step(self, step: int) -> None:
        self.wait_for(lambda: steps_of(self.folder) >= step)

    def end(self) -> int:
        """Its exit status."""
        wait_until(lambda: self.process.poll() is not None, why=self.told)
        return self.process.wait()

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.folder) if event["event"] == kind]

    def unheard(self) -> list[dict[str, Any]]:
        """Of what was late, nodes that do not answer. A busy machine makes others late too."""
        return [late for late in self.events("late") if late["is_unheard"]]


@pytest.mark.slow
def test_both_nodes_train(lab: Lab, workplace: Path, untouched: Trace):
    """The run is seen, stopped and continued from another machine."""
    with RayCluster(lab, lab.machines[:2], cpus=1) as cluster:
        run = Running.begin(cluster, workplace, "both")
        run.wait_for_step(50)
        assert [len(cluster.ranks(machine)) for machine in cluster.machines] == [1, 1]
        there = cluster.machines[1]
        cluster.on(there, [SHOAL, "stop", "both"], cwd=workplace)
        assert run.end() == 130, run.told()
        assert "stopped" in cluster.on(there, [SHOAL, "status", "both"], cwd=workplace).stdout
        assert_nothing_left(cluster)
        again = Running.of(cluster, workplace, "both", ["resume", "both"])
        assert again.end() == 0, again.told()
        assert trace_of(run.folder) == untouched
        assert run.events("evaluated")
        assert_nothing_left(cluster)


@pytest.mark.parametrize("how", ["power", pytest.param("network", marks=pytest.mark.slow)])
def test_another_node_takes_over(lab: Lab, workplace: Path, untouched: Trace, how: str):
    with RayCluster(lab, lab.machines, cpus=1) as cluster:
        run = Running.begin(cluster, workplace, f"lost_{how}")
        run.wait_for_step(50)
        lost = cluster.with_a_rank()
        if how == "power":
            lost.power_off()
        else:
            lab.cut(lost)
        assert run.end() == 0, run.told()
        assert trace_of(run.folder) == untouched
        (fault,) = run.events("fault")
        assert fault["kind"] == "node"
        assert f"{lost.name}, the node of rank " in fault["what"]
        (line,) = [line for line in run.told().splitlines() if "going on from step" in line]
        assert line.startswith(fault["what"])
        # Cut off it goes on with nothing: its ranks end by themselves, although nobody tells them.
        assert_nothing_left(cluster)


@pytest.mark.slow
def test_a_run_shrinks_to_the_nodes_that_are_left(lab: Lab, workplace: Path, untouched: Trace):
    with RayCluster(lab, lab.machines[:2], cpus=1) as cluster:
        run = Running.begin(cluster, workplace, "shrunk", "cluster.workers=[1,2]")
        run.wait_for_step(50)
        lab.machines[1].power_off()
        assert run.end() == 0, run.told()
        assert [attempt["workers"] for attempt in run.events("attempt")] == [2, 1]
        assert trace_of(run.folder).ledger == untouched.ledger
        assert_nothing_left(cluster)


@pytest.mark.slow
def test_a_link_that_comes_back_in_time_costs_nothing(lab: Lab, workplace: Path, untouched: Trace):
    with RayCluster(lab, lab.machines[:2], cpus=1, settings=PATIENT) as cluster:
        run = Running.begin(cluster, workplace, "blinked", "failure.hang_s=300")
        run.wait_for_step(50)
        lost = cluster.with_a_rank()
        lab.cut(lost)
        run.wait_for(lambda: bool(run.unheard()))
        lab.heal(lost)
        assert run.end() == 0, run.told()
        assert trace_of(run.folder) == untouched
        late = run.unheard()[0]
        assert late["host"] == lost.name
        assert f"Nothing is heard of {lost.name}, the node of rank {late['rank']}" in run.told()
        assert run.events("fault") == []


@pytest.mark.slow
def test_a_node_that_comes_back_is_used_again(lab: Lab, workplace: Path, untouched: Trace):
    """It was given up; there is no other."""
    with RayCluster(lab, lab.machines[:2], cpus=1) as cluster:
        run = Running.begin(cluster, workplace, "back")
        run.wait_for_step(50)
        lost = cluster.with_a_rank()
        before = cluster.ranks(lost)
        lab.cut(lost)
        run.wait_for(lambda: bool(run.events("waiting")))
        lab.heal(lost)
        # Ranks of the attempt that is over do not stay beside those of the next one.
        wait_until(lambda: not any(rank.is_running() for rank in before), 120)
        assert run.end() == 0, run.told()
        assert trace_of(run.folder) == untouched
        (fault,) = run.events("fault")
        assert (fault["kind"], fault["what"].split(",")[0]) == ("node", lost.name)
        assert_nothing_left(cluster)


def test_what_one_node_alone_has_is_refused(lab: Lab, workplace: Path, tmp_path: Path):
    """Before anything is loaded: a folder, then another shoal."""
    head, other, _ = lab.machines
    head.run(["mkdir", "-p", f"{PRIVATE}/runs"])
    with RayCluster(lab, [head, other], cpus=1) as cluster:
        run = Running.begin(cluster, workplace, "apart", f"storage.path={PRIVATE}/runs")
        assert run.end() == 1
        assert f"storage.path = {PRIVATE}/runs: cannot be used on {other.name}" in run.told()
        assert "loading the base" not in run.told()
        assert list((head.private / "runs").iterdir()) == []
        for room in _ROOMS:
            shutil.copytree(ROOT / room, tmp_path / room)
        with (tmp_path / "trainer" / "loop.py").open("a") as file:
            file.write("# another\n")
        other.clear()
        cluster.wait_until_alive([head])
        cluster.join(other, env={"PYTHONPATH": str(tmp_path)})
        cluster.wait_until_alive([head, other])
        run = Running.begin(cluster, workplace, "other")
        assert run.end() == 1
        assert f"Not all nodes have the same software. shoal: {other.name} has " in run.told()
        assert "reading sources" not in run.told()
