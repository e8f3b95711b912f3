"""The files that a lab's machines read: names and addresses, and SLURM's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.init import SERVICES

CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Hardware:
    """What every machine that computes says it has; none of it has to exist."""

    cpus: int = 4
    memory_mb: int = 8000
    gpus: int = 0
    shm_mb: int = 512


def hosts(addresses: Mapping[str, str]) -> str:
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
    return "\n".join(lines) + "\n"


# Without DNS every reverse lookup would stall for 10 s on a resolver that cannot be reached:
# it made gloo's start take 20 s instead of 0.65 s.
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"


def slurm_conf(
    addresses: Mapping[str, str], hardware: Hardware, *, log: str, track_by_cgroup: bool
) -> str:
    """slurm.conf for a controller on `control` and a node on every other machine."""
    nodes = [name for name in addresses if name != CONTROL]
    gres = f" Gres=gpu:{hardware.gpus}" if hardware.gpus else ""
    every = ",".join(nodes)
    lines = [
        "ClusterName=lab",
        f"SlurmctldHost={CONTROL}({addresses[CONTROL]})",
        "SlurmUser=root",
        "SlurmdUser=root",
        # The time a credential is good for is also how long a requeued job waits: 120 s by default.
        f"AuthInfo=socket={SERVICES}/munge.socket,cred_expire=5",
        f"StateSaveLocation={SERVICES}/state",
        f"SlurmdSpoolDir={SERVICES}/spool",
        f"SlurmctldPidFile={SERVICES}/slurmctld.pid",
        f"SlurmdPidFile={SERVICES}/slurmd.pid",
        f"SlurmctldLogFile={log}/slurmctld.log",
        f"SlurmdLogFile={log}/slurmd.%n.log",
        # linuxproc loses daemons that made a session of their own, as Ray's do.
        f"ProctrackType=proctrack/{'cgroup' if track_by_cgroup else 'linuxproc'}",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "SlurmdParameters=config_overrides",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        # A job that names no memory would take all of a node's.
        f"DefMemPerCPU={hardware.memory_mb // hardware.cpus}",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=0,batch_sched_delay=0",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmctldParameters=preempt_send_user_signal",
        "JobRequeue=1",
        "ReturnToService=2",
        # A node without power is seen as down after about 15 s; after 27 s with the usual 10 s for
        # a message, however short SlurmdTimeout is.
        "SlurmdTimeout=8",
        "MessageTimeout=5",
        "TCPTimeout=1",
        "KillWait=5",
        "MinJobAge=3600",
        "AccountingStorageType=accounting_storage/none",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={log}/jobcomp.txt",
        *(["GresTypes=gpu"] if gres else []),
        *(
            f"NodeName={name} NodeAddr={addresses[name]} CPUs={hardware.cpus} "
            f"RealMemory={hardware.memory_mb}{gres} State=UNKNOWN"
            for name in nodes
        ),
        f"PartitionName=main Nodes={every} Default=YES MaxTime=INFINITE State=UP "
        "PriorityTier=1 PreemptMode=REQUEUE GraceTime=20",
        f"PartitionName=urgent Nodes={every} MaxTime=INFINITE State=UP "
        "PriorityTier=10 PreemptMode=OFF",
    ]
    return "\n".join(lines) + "\n"


CGROUP_CONF = f"""\
CgroupPlugin=cgroup/v1
CgroupMountpoint={SERVICES}/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
"""


def gres_conf(gpus: int) -> str:
    return "".join(f"Name=gpu File={SERVICES}/gpu{number}\n" for number in range(gpus))


def environment(outer: Mapping[str, str], *, home: str, programs: Sequence[str]) -> dict[str, str]:
    """What a login has: this environment, less what is only true here."""
    of_here = ("RAY_", "SLURM_", "SBATCH_", "SRUN_", "PYTEST_", "COV_", "XDG_")
    kept = {
        name: value
        for name, value in outer.items()
        if not name.startswith(of_here) and name not in ("TMPDIR", "VIRTUAL_ENV", "HOSTNAME")
    }
    path = [*programs, *kept.get("PATH", "").split(":"), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return {**kept, "PATH": ":".join(dict.fromkeys(filter(None, path))), "HOME": home}
