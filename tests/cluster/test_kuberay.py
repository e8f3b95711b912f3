"""The RayJob of a run against the schema that Kubernetes checks it with."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from cluster.ray_jobs.ticket import Ticket
from launcher.scheduled.submit import dry_run, submit
from recipes.errors import RecipeError
from recipes.load import load

SCHEMA = yaml.safe_load((Path(__file__).parent / "rayjob_crd.yaml").read_text())
GIVEN = [
    "cluster.kind=kuberay",
    "kuberay.image=registry.example/shoal:1",
    "kuberay.claim=team",
    "storage.path=/storage/runs",
    "storage.cache=/storage/cache",
]


def job_of(*overrides: str) -> dict:
    text = dry_run(load("quickstart", [*GIVEN, *overrides]))
    job = yaml.safe_load(text)
    jsonschema.validate(job, SCHEMA)
    return job


def pods(job: dict) -> tuple[dict, dict]:
    """Specs of the head's pod and of the workers' pods."""
    cluster = job["spec"]["rayClusterSpec"]
    [workers] = cluster["workerGroupSpecs"]
    return cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]


def test_a_manifest_fits_the_schema():
    job = job_of()
    head, worker = pods(job)
    assert job["metadata"] == {"name": "quickstart"}
    assert head["containers"][0]["image"] == "registry.example/shoal:1"
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "32Gi"}
    for pod in (head, worker):
        assert pod["containers"][0]["volumeMounts"][0] == {
            "name": "storage",
            "mountPath": "/storage",
        }


def test_a_manifest_says_all_that_the_recipe_says():
    job = job_of(
        "name=Großer Lauf 2",
        "kuberay.namespace=ml",
        "kuberay.queue=team-a",
        "kuberay.nodes=2",
        "kuberay.gpus_per_node=8",
        "kuberay.memory=1.5Ti",
        "kuberay.shared_memory=64Gi",
        "kuberay.head_memory=16Gi",
        "kuberay.service_account=trainer",
        "kuberay.node_selector=[gpu=h100, zone=]",
        "kuberay.secrets=[hub, s3]",
        "kuberay.max_retries=0",
        "cluster.workers=16",
        "train.global_batch_size=16",
        "train.micro_batch_size=1",
        "ray_job.python=/opt/venv/bin/python",
    )
    head, worker = pods(job)
    assert job["metadata"] == {
        "name": "gro-er-lauf-2",
        "namespace": "ml",
        "labels": {"kueue.x-k8s.io/queue-name": "team-a"},
    }
    assert job["spec"]["entrypoint"] == "/opt/venv/bin/python -m launcher job"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2
    amounts = {"cpu": "8", "memory": "1.5Ti", "nvidia.com/gpu": "8"}
    assert worker["containers"][0]["resources"] == {"limits": amounts, "requests": amounts}
    assert worker["nodeSelector"] == {"gpu": "h100", "zone": ""}
    assert worker["volumes"][1]["emptyDir"]["sizeLimit"] == "64Gi"
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    assert head["containers"][0]["resources"]["limits"]["memory"] == "16Gi"
    for pod in (head, worker):
        assert pod["serviceAccountName"] == "trainer"
        assert pod["containers"][0]["envFrom"] == [
            {"secretRef": {"name": "hub"}},
            {"secretRef": {"name": "s3"}},
        ]


def test_the_job_carries_its_recipe(tmp_path: Path):
    environment = yaml.safe_load(job_of("train.steps=7")["spec"]["runtimeEnvYAML"])["env_vars"]
    ticket = Ticket.from_environment(environment)
    (tmp_path / "recipe.yaml").write_text(ticket.recipe)
    loaded = load(str(tmp_path / "recipe.yaml"))
    assert ticket.run == "quickstart"
    assert loaded.recipe == load("quickstart", [*GIVEN, "train.steps=7"]).recipe


def test_the_schema_is_closed():
    job = job_of()
    pods(job)[1]["containers"][0]["resources"]["limit"] = {}
    with pytest.raises(jsonschema.ValidationError, match="limit"):
        jsonschema.validate(job, SCHEMA)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("kuberay.image=null", "kuberay.image: must be given"),
        ("kuberay.claim=null", "kuberay.claim: must be given"),
        (
            "storage.path=/home/me/runs",
            "storage.path = '/home/me/runs': is not below kuberay.mount",
        ),
        (
            "storage.cache=/storage-2/c",
            "storage.cache = '/storage-2/c': is not below kuberay.mount",
        ),
        ("kuberay.memory=64 GB", "kuberay.memory = '64 GB': is no amount of memory"),
        ("kuberay.node_selector=h100", "kuberay.node_selector = 'h100': is no label"),
        ("kuberay.gpus_per_node=0", "kuberay.gpus_per_node = 0: is too few"),
        ("kuberay.mount=storage", "kuberay.mount = 'storage': is no path from the root"),
    ],
)
def test_what_a_pod_lacks_is_told(override: str, told: str):
    with pytest.raises(RecipeError, match=told):
        job_of(override)


def test_s3_needs_no_claimed_folder_for_runs():
    assert "s3://bucket/runs" in json.dumps(job_of("storage.path=s3://bucket/runs"))


def test_kubernetes_is_left_to_kubectl():
    with pytest.raises(RecipeError, match="kubectl apply"):
        submit(load("quickstart", GIVEN))


def test_long_names_are_cut():
    name = job_of(f"name={'long_name_' * 9}")["metadata"]["name"]
    assert name == "long-name-long-name-long-name-long-name"
    assert job_of("name=2024 run")["metadata"]["name"] == "run-2024-run"
    assert job_of("name=数据")["metadata"]["name"] == "run"
