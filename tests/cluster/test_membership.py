"""What a task of a job knows of itself, from SLURM's environment."""

from __future__ import annotations

import pytest

from cluster.slurm.membership import Membership
from recipes.errors import ClusterError

ENVIRONMENT = {
    "SLURM_JOB_ID": "5",
    "SLURM_RESTART_COUNT": "2",
    "SHOAL_NODES": "n1 n2 ",
    "SLURM_PROCID": "1",
    "SLURM_CPUS_ON_NODE": "4",
    "RAY_AUTH_TOKEN": "secret",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_a_task_of_a_job():
    found = Membership.from_environment()
    assert (found.id, found.job, found.restarts) == ("5", 5, 2)
    assert (found.node, found.nodes) == ("n2", ("n1", "n2"))
    assert "secret" not in repr(found)


def test_a_task_of_an_array_is_not_taken_for_the_array(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert Membership.from_environment().id == "5_3"


def test_outside_of_a_job(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SHOAL_NODES")
    with pytest.raises(ClusterError, match="this is no task of a job of `shoal submit`"):
        Membership.from_environment()
