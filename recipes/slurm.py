"""The SLURM job that `cluster.kind: slurm` submits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from recipes.environment import assigned_secret
from recipes.problem import Problem

_TIME = re.compile(r"(\d+-)?\d+(:\d{2}){0,2}")
# What shoal writes itself, by the section's keys; a second line would silently win or lose.
_OWN_OPTIONS = {
    "nodes": "nodes",
    "N": "nodes",
    "partition": "partition",
    "p": "partition",
    "account": "account",
    "A": "account",
    "qos": "qos",
    "q": "qos",
    "constraint": "constraint",
    "C": "constraint",
    "reservation": "reservation",
    "time": "time",
    "t": "time",
    "gpus-per-node": "gpus_per_node",
    "gres": "gres",
    "cpus-per-task": "cpus_per_node",
    "c": "cpus_per_node",
    "mem": "memory",
    "exclusive": "exclusive",
    "exclude": "exclude",
    "export": "cluster.env",
    "x": "exclude",
    "signal": "signal_s",
    "requeue": "max_requeues",
    "no-requeue": "max_requeues",
}
_FIXED_OPTIONS = ("job-name", "J", "ntasks", "n", "ntasks-per-node", "array", "output", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    nodes: int = 1
    """Nodes of the job."""

    partition: str | None = None
    """Partition; the cluster's default when left out."""

    account: str | None = None
    """Account that is charged."""

    qos: str | None = None
    """Quality of service."""

    constraint: str | None = None
    """Features that the nodes must have, such as `a100&ib`."""

    reservation: str | None = None
    """Reservation to run in."""

    time: str | None = None
    """Time limit: minutes, HH:MM:SS or D-HH:MM:SS; the partition's when left out."""

    signal_s: int = 120
    """How long before the time limit the run is told to save and stop (seconds)."""

    gpus_per_node: int | None = None
    """GPUs of each node."""

    gres: str | None = None
    """Generic resources of each node, such as `gpu:a100:8`, where gpus_per_node is not known."""

    cpus_per_node: int | None = None
    """CPU cores of each node; what its share of the workers needs when left out."""

    memory: str | None = None
    """Memory of each node, such as `200G`; `0` takes all there is."""

    exclusive: bool = False
    """Whether nobody else may use the nodes meanwhile."""

    exclude: list[str] = field(default_factory=list)
    """Nodes not to run on."""

    max_requeues: int = 20
    """How often the job queues again after the time limit, a preemption or a lost node."""

    container_image: str | None = None
    """Image that every node runs in, given to srun as --container-image (pyxis and others)."""

    container_mounts: list[str] = field(default_factory=list)
    """Folders seen inside the container, such as `/data:/data`."""

    setup: list[str] = field(default_factory=list)
    """Shell lines that run first, such as `module load cuda` or `source venv/bin/activate`."""

    shoal: str | None = None
    """The shoal command on the nodes; the one that submits when left out."""

    extra: list[str] = field(default_factory=list)
    """More `#SBATCH` options, such as `--mail-type=END`, one each."""

    def problems(self) -> Iterator[Problem]:
        for name, least in (("nodes", 1), ("signal_s", 10), ("max_requeues", 0)):
            value = getattr(self, name)
            if value < least:
                yield Problem(
                    path=f"slurm.{name}", value=value, message="is too few", allowed=f"≥ {least}"
                )
        for name in ("gpus_per_node", "cpus_per_node"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(
                    path=f"slurm.{name}",
                    value=value,
                    message="is too few",
                    allowed="≥ 1, or left out",
                )
        if self.time is not None and not _TIME.fullmatch(self.time):
            yield Problem(
                path="slurm.time",
                value=self.time,
                message="is no time limit",
                allowed="minutes, HH:MM:SS or D-HH:MM:SS",
                hint='In YAML, write it in quotes: "12:00:00"',
            )
        if self.gpus_per_node is not None and self.gres is not None and "gpu" in self.gres:
            yield Problem(
                path="slurm.gres",
                value=self.gres,
                message="asks for GPUs a second time",
                hint="Leave slurm.gpus_per_node or slurm.gres out",
            )
        if self.container_mounts and self.container_image is None:
            yield Problem(
                path="slurm.container_mounts",
                value=list(self.container_mounts),
                message="there is no container",
                hint="Set slurm.container_image",
            )
        yield from self._text_problems()
        for option in self.extra:
            yield from _option_problems(option)

    def _text_problems(self) -> Iterator[Problem]:
        """One word each: they become a line of a script."""
        names = ("partition", "account", "qos", "constraint", "reservation", "gres", "memory")
        for name in names:
            value = getattr(self, name)
            if value is not None and (not value or any(letter.isspace() for letter in value)):
                yield Problem(
                    path=f"slurm.{name}", value=value, message="is no word", allowed="no spaces"
                )
        for node in self.exclude:
            if not node or any(letter.isspace() for letter in node):
                yield Problem(path="slurm.exclude", value=node, message="is no node's name")
        for line in self.setup:
            if secret := assigned_secret(line):  # the value is not shown
                yield Problem(
                    path="slurm.setup",
                    message=f"would write the value of {secret} into the job's script",
                    hint=f"Set it in the shell that submits, and name it: cluster.env: [{secret}]",
                )
        for line in (*self.setup, *self.container_mounts):
            if "\n" in line:
                yield Problem(
                    path="slurm.setup" if line in self.setup else "slurm.container_mounts",
                    value=line,
                    message="has a line break",
                    hint="Write each line as an item of its own",
                )


def _option_problems(option: str) -> Iterator[Problem]:
    name = option.lstrip("-").split("=")[0].split(" ")[0]
    own = _OWN_OPTIONS.get(name)
    if not option.startswith("-") or "\n" in option:
        yield Problem(
            path="slurm.extra",
            value=option,
            message="is no option of sbatch",
            hint="Write it as after #SBATCH, such as --mail-type=END",
        )
    elif own is not None:
        yield Problem(
            path="slurm.extra",
            value=option.split("=")[0],  # the rest may be a secret, of --export
            message="has a key of its own",
            hint=f"Set {own if '.' in own else f'slurm.{own}'}",
        )
    elif name in _FIXED_OPTIONS:
        yield Problem(
            path="slurm.extra",
            value=option,
            message="is what shoal decides itself",
            hint="Leave it out",
        )
