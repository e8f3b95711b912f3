"""The doctor on a Ray cluster that is there already, over three machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from chaos.workplace import make_workplace

from lab.lab import PATIENCE_S, Lab
from lab.ray_cluster import RayCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

SHOAL = str(Path(sys.executable).parent / "shoal")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("doctor_on_ray"), steps=20)


def doctor(cluster: RayCluster, workplace: Path, *more: str, status: int) -> dict[str, Any]:
    place = ["cluster.kind=ray", f"cluster.address={cluster.address}"]
    command = [SHOAL, "doctor", "--json", "tiny.yaml", *place, *more]
    done = cluster.head.run(
        command, env=cluster.environment, cwd=workplace, timeout_s=PATIENCE_S, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_nodes_and_the_pairs_of_them(lab: Lab, workplace: Path):
    with RayCluster(lab, lab.machines) as cluster:
        report = doctor(cluster, workplace, status=0)
    assert sorted(node["node"] for node in report["nodes"]) == ["n1", "n2", "n3"]
    assert [node["cpus"] for node in report["nodes"]] == [2, 2, 2]
    assert len(report["links"]) == 3
    assert all(link["latency_s"] > 0 and link["bytes_per_s"] > 0 for link in report["links"])
    assert report["override"] is None


@pytest.mark.slow
def test_a_node_that_does_not_answer_is_named(lab: Lab, workplace: Path):
    """Stopped, not dead: its raylet takes what it is sent, and does nothing. (nsenter, below which
    the others run, stops with what it has started, and does not go on with it.)"""
    with RayCluster(lab, lab.machines, settings={}) as cluster:
        (raylet,) = [one for one in lab.machines[2].processes() if one.name() == "raylet"]
        raylet.suspend()
        try:
            report = doctor(cluster, workplace, "--no-network", status=1)
        finally:
            if raylet.is_running():  # it ends itself when it hears that it was given up
                raylet.resume()
    errors = [one for one in report["findings"] if one["severity"] == "error"]
    assert [one["node"] for one in errors] == ["n3"]
    assert errors[0]["what"].startswith("does not answer: ")
    assert sorted(node["node"] for node in report["nodes"]) == ["n1", "n2"]
