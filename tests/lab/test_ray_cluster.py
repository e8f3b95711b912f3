"""Ray over machines of the lab: it spans them, comes back after a cut, and leaves nothing."""

from __future__ import annotations

import pytest

from lab.lab import Lab
from lab.machine import CommandFailed
from lab.ray_cluster import RayCluster

pytestmark = pytest.mark.slurm

NAMES = """
import socket, sys, ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
def name() -> str:
    return socket.gethostname()

strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
nodes = [strategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
print(*sorted(ray.get([name.options(scheduling_strategy=node).remote() for node in nodes])))
"""

JOB = """
import sys, time
from ray.job_submission import JobSubmissionClient

client = JobSubmissionClient(sys.argv[1])
job = client.submit_job(entrypoint="hostname")
while not client.get_job_status(job).is_terminal():
    time.sleep(0.2)
print(client.get_job_status(job), client.get_job_logs(job))
"""


def test_a_machine_that_was_cut_off_comes_back(lab: Lab):
    n1, n2, n3 = lab.machines
    with RayCluster(lab, lab.machines) as cluster:
        assert cluster.on(n2, ["python", "-c", NAMES, cluster.address]).stdout == "n1 n2 n3\n"
        lab.cut(n3)
        cluster.wait_until_alive([n1, n2])
        lab.heal(n3)
        cluster.wait_until_alive(lab.machines)
        n2.power_off()
        cluster.wait_until_alive([n1, n3])
        n2.start()
        cluster.join(n2)
        cluster.wait_until_alive(lab.machines)
    for machine in lab.machines:
        assert [machine.processes(), machine.shared_memory()] == [[], []]
        assert not machine.path(cluster.folder).exists()


def test_jobs_are_taken_from_those_who_know_the_password(lab: Lab):
    with RayCluster(lab, lab.machines[:1], dashboard=True) as cluster:
        submit = ["python", "-c", JOB, cluster.dashboard_url]
        told = cluster.on(lab.control, submit).stdout
        assert told.startswith("SUCCEEDED") and "n1" in told.split()
        with pytest.raises(CommandFailed, match=r"[Aa]uthentication"):
            lab.control.run(submit)
