"""What one node says of itself. Imports neither torch nor Ray."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import resource
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from cluster.process import CommandError, last_lines, run
from launcher.install import ROOMS
from launcher.plan.machine import host_memory_bytes
from recipes.files import existing

ABSENT = "absent"
"""In the place of a version."""

# Which kernels are chosen depends on whether these are there.
OPTIONAL = ("flash-attn", "liger-kernel")

_ASK_GPU_S = 20.0
_TRY_TORCH_S = 120.0
_GPU_QUERY = "name,memory.total,driver_version,compute_cap"
# In a process of its own: a driver that hangs, hangs only that.
_TRY_TORCH = """\
import torch
torch.cuda.init()
assert torch.cuda.device_count(), "torch sees none"
torch.ones(1, device="cuda").sum().item()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_bytes: int
    driver: str
    compute_capability: str
    """NVIDIA's, such as 8.0, from which on there is bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Of the file system that a folder is, or would be, on."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A node's clock against that of the machine that asks."""

    ahead_s: float
    uncertainty_s: float
    """Half the time that asking took: the answer may have been made at either end of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node as it was found."""

    node: str
    """Its name: SLURM's in a job of SLURM, else the host's."""
    versions: Mapping[str, str]
    """By package, and `python`; `shoal` with a digest of its files, since checkouts differ."""
    unmet: tuple[str, ...] = ()
    """What is not there, or in no version that shoal works with, each in one line."""
    cuda: str = ""
    """The CUDA that torch was built for; empty for a build without."""
    gpus: tuple[Gpu, ...] = ()
    """As nvidia-smi lists them."""
    gpu_error: str = ""
    """Why torch cannot compute on them, if so."""
    cpu_bfloat16: bool
    """Whether the CPU has instructions for it."""
    cpus: int
    """Cores that Ray offers."""
    offered_gpus: int
    """GPUs that Ray offers."""
    memory_bytes: int
    """Of the node, or of what a control group or job leaves of it."""
    available_bytes: int
    shm_bytes: int
    """Size of /dev/shm."""
    open_files: int
    """Limit of Ray's processes (soft)."""
    open_files_hard: int
    rooms: Mapping[str, Room] = field(default_factory=dict)
    """By the recipe's key, and `/tmp`."""
    clock: Clock | None = None


def collect(folders: Mapping[str, Path]) -> NodeFacts:
    """What this machine says of itself, and of folders by the recipe's key."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gpus = _gpus()
    total = _memory_bytes()
    return NodeFacts(
        node=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        versions=_versions(),
        unmet=_unmet(),
        cuda=_cuda_of_torch(),
        gpus=gpus,
        gpu_error=_gpu_error() if gpus else "",
        cpu_bfloat16=_cpu_has_bfloat16(),
        cpus=len(os.sched_getaffinity(0)),
        offered_gpus=len(gpus),
        memory_bytes=total,
        available_bytes=min(total, int(psutil.virtual_memory().available)),
        shm_bytes=_room(Path("/dev/shm")).total_bytes,
        open_files=soft,
        open_files_hard=hard,
        rooms={key: _room(folder) for key, folder in {**folders, "/tmp": Path("/tmp")}.items()},
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "shoal": _version_of_shoal()}
    for requirement in _requirements():
        found[requirement.name] = _version(requirement.name)
    return found | {name: _version(name) for name in OPTIONAL}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT


def _version_of_shoal() -> str:
    home = Path(__file__).resolve().parent.parent.parent
    digest = hashlib.sha256()
    for file in sorted(file for room in ROOMS for file in (home / room).rglob("*.py")):
        digest.update(f"{file.relative_to(home)}\n".encode() + file.read_bytes())
    return f"{_version('shoal')} ({digest.hexdigest()[:8]})"


def _requirements() -> list[Requirement]:
    """What shoal cannot do without, by its own metadata."""
    try:
        every = [Requirement(line) for line in requires("shoal") or []]
    except PackageNotFoundError:
        return []
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]


def _unmet() -> tuple[str, ...]:
    found = []
    for requirement in _requirements():
        there = _version(requirement.name)
        # A build for a certain CUDA, 2.13.0+cu130, is the version before the plus sign.
        if there == ABSENT or not requirement.specifier.contains(there, prereleases=True):
            found.append(f"{requirement.name} is {there}, shoal needs {requirement.specifier}")
    return tuple(found)


def _cuda_of_torch() -> str:
    """Read out of torch's files: importing it takes seconds and some hundred megabytes."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return ""
    try:
        text = (Path(torch.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"^cuda\b.*= '([\d.]+)'$", text, re.MULTILINE)
    return found[1] if found else ""


def _gpus() -> tuple[Gpu, ...]:
    program = ["nvidia-smi", f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader,nounits"]
    try:
        return parse_gpus(run(program, timeout_s=_ASK_GPU_S).stdout)
    except CommandError:
        return ()


def parse_gpus(table: str) -> tuple[Gpu, ...]:
    """The GPUs of nvidia-smi's table, whose memory is in MiB."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    return tuple(
        Gpu(
            name=row[0],
            memory_bytes=int(row[1]) * 2**20 if row[1].isdigit() else 0,
            driver=row[2],
            compute_capability=row[3],
        )
        for row in rows
        if len(row) == 4
    )


def _gpu_error() -> str:
    """Why torch cannot compute on this node's GPUs: by trying, since the rules of which driver
    serves which CUDA have exceptions."""
    try:
        run([sys.executable, "-c", _TRY_TORCH], timeout_s=_TRY_TORCH_S)
    except CommandError as error:
        return last_lines(error.stderr, 1) or error.why
    return ""


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    # x86's, and ARM's.
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _memory_bytes() -> int:
    """A job of SLURM may use what it has asked for, whether or not a control group holds it."""
    total = host_memory_bytes()
    asked = os.environ.get("SLURM_MEM_PER_NODE", "")  # MiB; 0 is all there is
    return min(total, int(asked) * 2**20) if asked.isdigit() and int(asked) else total


def _room(folder: Path) -> Room:
    usage = shutil.disk_usage(existing(folder))
    return Room(total_bytes=usage.total, free_bytes=usage.free)
