"""The RayJob of a run, for KubeRay's operator on Kubernetes, as a function of its recipe.

The fields are those of the custom resource `ray.io/v1`, of KubeRay 1.5.1 and later (`authOptions`).
The operator starts a Ray cluster of pods, submits the entrypoint to it, and takes it down.
"""

from __future__ import annotations

import math
import re
from importlib.metadata import version
from typing import Any

from cluster.job import Submission
from cluster.ray_jobs.scheduler import RUN, environment
from recipes.readable_yaml import to_yaml
from recipes.recipe import Recipe

_STORAGE, _SHM = "storage", "dshm"
# KubeRay appends to it to name what it makes, and refuses more than 47 characters.
_LONGEST_NAME = 40


def manifest(submission: Submission) -> str:
    """The RayJob as YAML, for `kubectl apply -f -`."""
    recipe = submission.recipe
    kuberay = recipe.kuberay
    metadata: dict[str, Any] = {"name": _name(submission.run_dir.name)}
    if kuberay.namespace is not None:
        metadata["namespace"] = kuberay.namespace
    if kuberay.queue is not None:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": kuberay.queue}
    job: dict[str, Any] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {
            "entrypoint": f"{recipe.ray_job.python} -m launcher {RUN}",
            "shutdownAfterJobFinishes": True,
            "backoffLimit": kuberay.max_retries,
            "runtimeEnvYAML": to_yaml({"env_vars": environment(submission)}),
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    # It drives the run and trains nothing.
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},
                    "template": {"spec": _pod(recipe, "ray-head", 2, kuberay.head_memory, 0)},
                },
                "workerGroupSpecs": [_workers(recipe)],
            },
        },
    }
    return to_yaml(job)


def _workers(recipe: Recipe) -> dict[str, Any]:
    kuberay = recipe.kuberay
    share = math.ceil(recipe.cluster.most_workers / kuberay.nodes)
    cpus = kuberay.cpus_per_node or share * recipe.cluster.cpus_per_worker
    spec = _pod(recipe, "ray-worker", cpus, kuberay.memory, kuberay.gpus_per_node or 0)
    if kuberay.node_selector:
        labels = (label.split("=", 1) for label in kuberay.node_selector)
        spec["nodeSelector"] = dict(labels)
    return {
        "groupName": "workers",
        "replicas": kuberay.nodes,
        "minReplicas": kuberay.nodes,
        "maxReplicas": kuberay.nodes,
        "rayStartParams": {},
        "template": {"spec": spec},
    }


def _pod(recipe: Recipe, name: str, cpus: int, memory: str, gpus: int) -> dict[str, Any]:
    kuberay = recipe.kuberay
    amounts = {"cpu": str(cpus), "memory": memory}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    container: dict[str, Any] = {
        "name": name,
        "image": kuberay.image,
        "resources": {"limits": amounts, "requests": amounts},
        "volumeMounts": [
            {"name": _STORAGE, "mountPath": kuberay.mount},
            {"name": _SHM, "mountPath": "/dev/shm"},
        ],
    }
    if kuberay.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in kuberay.secrets]
    spec: dict[str, Any] = {
        "containers": [container],
        "volumes": [
            {"name": _STORAGE, "persistentVolumeClaim": {"claimName": kuberay.claim}},
            # Ray's object store and NCCL live there; a container gets 64 MiB otherwise.
            {"name": _SHM, "emptyDir": {"medium": "Memory", "sizeLimit": kuberay.shared_memory}},
        ],
    }
    if kuberay.service_account is not None:
        spec["serviceAccountName"] = kuberay.service_account
    return spec


def _name(run: str) -> str:
    """A run's name as Kubernetes takes it: lower-case letters, digits and dashes."""
    word = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return word if word and word[0].isalpha() else f"run-{word}".strip("-")
