"""`shoal doctor` as a person meets it, on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.workplace import make_workplace

PROGRAM = """
import sys
from launcher.cli import main
try: main()
except SystemExit as end: status = end.code
heavy = {'torch', 'transformers', 'deepspeed', 'peft'} & set(sys.modules)
assert not heavy, heavy
sys.exit(status)
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("doctor"), steps=20)


def doctor(folder: Path, *arguments: str, status: int) -> subprocess.CompletedProcess[str]:
    """In a process that fails when it has imported anything heavy but Ray."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, "doctor", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == status, found.stdout + found.stderr
    return found


def test_this_machine_without_a_recipe(tmp_path: Path):
    report = json.loads(doctor(tmp_path, "--json", status=0).stdout)
    (node,) = report["nodes"]
    assert node["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert node["unmet"] == []
    assert node["memory_bytes"] >= node["available_bytes"] > 0
    assert node["rooms"].keys() == {"storage.cache", "/tmp"}
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_can_run_here(workplace: Path):
    before = sorted(workplace.rglob("*"))
    found = doctor(workplace, "tiny.yaml", status=0)
    assert "starting Ray: done" in found.stdout
    assert found.stdout.splitlines()[-1].endswith(
        ("No problems on 1 node", "on 1 node; nothing that ends a run")
    )
    assert sorted(workplace.rglob("*")) == before


def test_everything_that_is_wrong_is_told_at_once(workplace: Path):
    wrong = ["data.train=absent.jsonl", "cluster.cpus_per_worker=4096"]
    (workplace / "file").touch()
    found = doctor(workplace, "--json", "tiny.yaml", *wrong, "storage.path=file", status=1)
    told = {one["what"] for one in json.loads(found.stdout)["findings"]}
    for beginning in (
        "storage.path = ",
        "data.train = ",
        "cluster.workers = 2: there is room for 0",
    ):
        assert any(what.startswith(beginning) for what in told), told


def test_a_place_that_is_not_there(workplace: Path):
    away = ["cluster.kind=ray", "cluster.address=127.0.0.1:1"]
    found = doctor(workplace, "tiny.yaml", *away, status=1)
    assert "127.0.0.1:1" in found.stderr


def test_kubernetes_is_examined_from_a_pod(workplace: Path):
    kind = ["cluster.kind=kuberay", "kuberay.image=shoal", "kuberay.claim=team"]
    storage = ["storage.path=/storage/runs", "storage.cache=/storage/cache"]
    found = doctor(workplace, "tiny.yaml", *kind, *storage, status=2)
    assert "Give it in a pod of that Ray cluster, with cluster.kind=ray" in found.stderr


def test_a_cluster_without_a_jobs_api_is_told(workplace: Path):
    place = ["cluster.kind=ray_job", "cluster.address=http://127.0.0.1:9"]
    found = doctor(workplace, "tiny.yaml", *place, status=1)
    assert "Ray's Jobs API at http://127.0.0.1:9" in found.stderr
