"""The lab keeps what it promises: machines that are apart, and nothing left behind."""

from __future__ import annotations

import pytest

from lab.lab import Lab

pytestmark = pytest.mark.slurm


def test_a_job_over_two_nodes(lab: Lab):
    job = lab.submit("--nodes=2", "--output=two.out", "--wrap=srun hostname")
    assert lab.wait_for_job(job)["JobState"] == "COMPLETED"
    assert sorted((lab.shared / "two.out").read_text().split()) == ["n1", "n2"]
