"""The doctor as a job of a real SLURM on three machines, some of which have something."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from chaos.workplace import make_workplace

from lab.init import PRIVATE
from lab.lab import PATIENCE_S, Lab, wait_until
from lab.machine import Machine

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

SHOAL = str(Path(sys.executable).parent / "shoal")
JOB = ["cluster.kind=slurm", "cluster.workers=3", "slurm.nodes=3", "slurm.partition=main"]
JOB += ["slurm.exclusive=true"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("doctor"), steps=20)


def doctor(lab: Lab, workplace: Path, *more: str, status: int) -> dict[str, Any]:
    """The report of a doctor that is asked for on `control`; nothing of it is left anywhere."""
    command = [SHOAL, "doctor", "--json", "tiny.yaml", *JOB, *more]
    done = lab.control.run(command, cwd=workplace, timeout_s=PATIENCE_S, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    wait_until(lambda: not any(machine.processes() for machine in lab.machines), 90)
    assert [machine.shared_memory() for machine in lab.machines] == [[], [], []]
    assert list((workplace / "runs" / ".doctor").iterdir()) == []
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def wrapped_shoal(machine: Machine, *lines: str) -> None:
    """`PRIVATE/shoal` on a machine: the same shoal, after these lines."""
    file = machine.private / "shoal"
    file.write_text("\n".join(["#!/bin/bash", *lines, f'exec {SHOAL} "$@"', ""]))
    file.chmod(0o755)


def errors_of(report: dict[str, Any]) -> list[tuple[str | None, str]]:
    return [(one["node"], one["what"]) for one in report["findings"] if one["severity"] == "error"]


@pytest.mark.slow
def test_healthy_nodes(lab: Lab, workplace: Path):
    report = doctor(lab, workplace, status=0)
    assert errors_of(report) == []
    assert sorted(node["node"] for node in report["nodes"]) == ["n1", "n2", "n3"]
    assert [node["cpus"] for node in report["nodes"]] == [1, 1, 1]
    pairs = {frozenset(link["nodes"]) for link in report["links"]}
    assert pairs == {frozenset(pair) for pair in (("n1", "n2"), ("n1", "n3"), ("n2", "n3"))}
    for link in report["links"]:
        assert link["error"] == ""
        assert link["latency_s"] > 0
        assert link["bytes_per_s"] > 0
    assert report["override"] == f"slurm.exclude=[{','.join(report['leave_out'])}]"


def test_the_odd_one_is_named_and_can_be_left_out(lab: Lab, workplace: Path):
    """n3 has another PEFT, and a folder of its own in the place of the shared cache."""
    for machine in lab.machines[:2]:
        wrapped_shoal(machine)
    n3, cache = lab.machines[2], workplace / "cache"
    wrapped_shoal(n3, f"export PYTHONPATH={PRIVATE}/packages:$PYTHONPATH")
    metadata = n3.private / "packages" / "peft-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.0.1\n")
    cache.mkdir(exist_ok=True)
    n3.run(["mount", "--bind", PRIVATE, cache])
    try:
        report = doctor(lab, workplace, f"slurm.shoal={PRIVATE}/shoal", "--no-network", status=1)
    finally:
        n3.run(["umount", cache])
    errors = errors_of(report)
    assert {node for node, _ in errors} == {"n3"}
    assert any(what.startswith("peft is 0.0.1, on most nodes ") for _, what in errors)
    assert any(what.startswith(f"storage.cache = {cache}: is another") for _, what in errors)
    assert report["links"] == []
    assert report["override"] == "slurm.exclude=[n3]"
    command = [SHOAL, "submit", "--dry-run", "tiny.yaml", *JOB, report["override"]]
    assert "\n#SBATCH --exclude=n3\n" in lab.control.run(command, cwd=workplace).stdout


@pytest.mark.slow
def test_a_node_that_does_not_come_is_named(lab: Lab, workplace: Path):
    for machine in lab.machines[:2]:
        wrapped_shoal(machine)
    own = [f"slurm.shoal={PRIVATE}/shoal", "cluster.form_s=30", "--no-network"]
    report = doctor(lab, workplace, *own, status=1)
    assert ("n3", "has not come within cluster.form_s") in errors_of(report)
    assert report["leave_out"] == ["n3"]


def test_a_job_without_a_report_says_why(lab: Lab, workplace: Path):
    command = [SHOAL, "doctor", "tiny.yaml", *JOB, "slurm.shoal=/no/such/shoal"]
    done = lab.control.run(command, cwd=workplace, timeout_s=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "ended without a report (FAILED): the last it printed" in done.stderr
    assert "/no/such/shoal" in done.stderr
