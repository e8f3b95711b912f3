"""What the slurm section refuses, and what it says instead."""

from __future__ import annotations

import pytest

from recipes.cluster import Cluster
from recipes.slurm import Slurm


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"nodes": 0}, "slurm.nodes = 0: is too few; allowed: ≥ 1"),
        ({"time": "12h"}, "slurm.time = '12h': is no time limit; allowed: minutes, HH:MM:SS"),
        ({"partition": "a b"}, "slurm.partition = 'a b': is no word"),
        ({"gpus_per_node": 0}, "slurm.gpus_per_node = 0: is too few"),
        ({"gpus_per_node": 8, "gres": "gpu:8"}, "slurm.gres = 'gpu:8': asks for GPUs a second"),
        ({"container_mounts": ["/a:/a"]}, "slurm.container_mounts = ['/a:/a']: there is no cont"),
        ({"setup": ["a\nb"]}, "slurm.setup = 'a\\nb': has a line break"),
        ({"extra": ["mail-type=END"]}, "slurm.extra = 'mail-type=END': is no option of sbatch"),
        ({"extra": ["--time=3"]}, "has a key of its own. Set slurm.time"),
        ({"extra": ["-N 3"]}, "has a key of its own. Set slurm.nodes"),
        ({"extra": ["--array=1-3"]}, "is what shoal decides itself"),
        ({"exclude": ["n1 n2"]}, "slurm.exclude = 'n1 n2': is no node's name"),
    ],
)
def test_a_wrong_value_is_told(values: dict, expected: str):
    (problem,) = Slurm(**values).problems()
    assert expected in str(problem)


@pytest.mark.parametrize("time", ["60", "12:00:00", "90:00", "2-12:00:00", "1-06"])
def test_time_limits_of_slurm_are_taken(time: str):
    assert not list(Slurm(time=time).problems())


def test_an_address_needs_its_kind():
    (problem,) = Cluster(address="auto").problems()
    assert "cluster.address = 'auto': means nothing to cluster.kind = local" in str(problem)
    assert "cluster.address=null takes it back" in str(problem)
    assert not list(Cluster(kind="ray", address="auto").problems())
