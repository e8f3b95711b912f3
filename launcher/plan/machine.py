"""The machines of a run: this one, looked at without torch, or what a person says of others."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.process import CommandError, run
from recipes.base import Base
from recipes.errors import RecipeError
from recipes.recipe import Recipe

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB|TiB|kB|MB|GB|TB|B)", re.IGNORECASE)
_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_ASK_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node of the run. None is what is not known."""

    where: str
    gpu: bool
    memory_bytes: int | None
    gpu_memory_bytes: int | None
    workers_per_node: int | None
    fused_kernels: bool


def machine_of(
    recipe: Recipe,
    *,
    memory_bytes: int | None = None,
    gpu_memory_bytes: int | None = None,
    gpus_per_node: int | None = None,
) -> Machine:
    """The recipe's node: this machine when Ray starts here, unless something else is told; of a job
    of SLURM what the job asks for."""
    cluster = recipe.cluster
    is_told = bool(memory_bytes or gpu_memory_bytes or gpus_per_node)
    is_local = cluster.kind == "local"
    is_here = is_local and not is_told
    found = _gpu_memory_bytes() if is_local else []
    gpu = cluster.device == "gpu"
    if cluster.device == "auto":
        # Nobody looks for a cluster: one that is told of, or is elsewhere, is taken to have GPUs.
        gpu = bool(found) if is_here else not (is_told and gpu_memory_bytes is None)
    if is_here:
        memory_bytes = host_memory_bytes()
        gpu_memory_bytes = min(found, default=None)
    workers_per_node = cluster.most_workers if is_here else gpus_per_node
    if cluster.kind == "slurm":
        memory_bytes = memory_bytes or _asked_bytes(recipe.slurm.memory)
        workers_per_node = workers_per_node or -(-cluster.most_workers // recipe.slurm.nodes)
    return Machine(
        where="this machine" if is_here else "a node",
        gpu=gpu,
        memory_bytes=memory_bytes,
        gpu_memory_bytes=gpu_memory_bytes if gpu else None,
        workers_per_node=workers_per_node,
        fused_kernels=gpu and importlib.util.find_spec("liger_kernel") is not None,
    )


def _asked_bytes(memory: str | None) -> int | None:
    """Bytes of sbatch's --mem: megabytes, or with K, M, G or T. 0 is all that a node has."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", (memory or "").upper())
    if found is None or int(found[1]) == 0:
        return None
    power = 1 + "KMGT".index(found[2] or "M")
    return int(found[1]) << 10 * power


def element_bytes(base: Base, machine: Machine) -> int:
    """Of base and activations: 4 for float32, 2 for bfloat16. `auto` is bfloat16 on a GPU; a CPU
    is measured when the run starts, and until then taken for one that needs the more memory."""
    if base.dtype == "auto":
        return 2 if machine.gpu else 4
    return 4 if base.dtype == "float32" else 2


def parse_size(text: str | None, option: str) -> int | None:
    """Bytes of a size such as 80GiB. Raises `RecipeError`."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise RecipeError(f"{option} = {text}: is no size. Write it as 512GiB, or 80GB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def host_memory_bytes() -> int:
    """Of this machine, or of the control group that this process is confined to."""
    total = int(psutil.virtual_memory().total)
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def _gpu_memory_bytes() -> list[int]:
    if not Path("/proc/driver/nvidia").exists():
        return []
    program = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = run(program, timeout_s=_ASK_S).stdout.split()
    except CommandError:
        return []
    return [int(line) * 2**20 for line in lines if line.isdigit()]
