"""The RayJob that `shoal submit --dry-run` writes for `cluster.kind: kuberay`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from recipes.problem import Problem

# Kubernetes' quantities, as far as memory needs them.
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?")
_LABEL = re.compile(r"[A-Za-z0-9./_-]+=[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeRay:
    image: str | None = None
    """Container image with shoal installed, for the head and the workers; must be given."""

    namespace: str | None = None
    """Namespace of the job; that of kubectl's context when left out."""

    claim: str | None = None
    """PersistentVolumeClaim, ReadWriteMany, that holds storage, data and bases."""

    mount: str = "/storage"
    """Where the claim is mounted; `storage.path` and `storage.cache` lie below it."""

    nodes: int = 1
    """Pods with workers, besides the head, which drives the run."""

    gpus_per_node: int | None = None
    """GPUs of each of these pods."""

    cpus_per_node: int | None = None
    """CPU cores of each of these pods; what its share of the workers needs when left out."""

    memory: str = "32Gi"
    """Memory of each of these pods."""

    shared_memory: str = "8Gi"
    """Size of /dev/shm in each pod; a part of its memory."""

    head_memory: str = "8Gi"
    """Memory of the head's pod."""

    service_account: str | None = None
    """Service account of the pods; the namespace's default when left out."""

    node_selector: list[str] = field(default_factory=list)
    """Labels that the workers' nodes must have, such as `gpu=h100`."""

    secrets: list[str] = field(default_factory=list)
    """Secrets whose keys become environment variables of the pods, by name."""

    queue: str | None = None
    """Kueue's LocalQueue that admits the job."""

    max_retries: int = 3
    """How often KubeRay starts a new cluster for a run that ended early; each goes on with it."""

    def problems(self) -> Iterator[Problem]:
        for name, least in (("nodes", 1), ("max_retries", 0)):
            if getattr(self, name) < least:
                yield Problem(
                    path=f"kuberay.{name}",
                    value=getattr(self, name),
                    message="is too few",
                    allowed=f"≥ {least}",
                )
        for name in ("gpus_per_node", "cpus_per_node"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(
                    path=f"kuberay.{name}",
                    value=value,
                    message="is too few",
                    allowed="≥ 1, or left out",
                )
        for name in ("memory", "shared_memory", "head_memory"):
            value = getattr(self, name)
            if not _QUANTITY.fullmatch(value):
                yield Problem(
                    path=f"kuberay.{name}",
                    value=value,
                    message="is no amount of memory",
                    allowed="as Kubernetes writes it, such as 64Gi",
                )
        if not self.mount.startswith("/"):
            yield Problem(
                path="kuberay.mount", value=self.mount, message="is no path from the root"
            )
        for label in self.node_selector:
            if not _LABEL.fullmatch(label):
                yield Problem(
                    path="kuberay.node_selector",
                    value=label,
                    message="is no label",
                    allowed="key=value",
                )
