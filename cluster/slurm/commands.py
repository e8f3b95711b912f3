"""SLURM by its commands: handing a job in, asking for it, ending it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.job import JobState, Phase
from cluster.process import CommandError, run
from recipes.errors import ClusterError

_TIMEOUT_S = 60.0
_FORMAT = "%i|%T|%r|%N"
_NODE = "%N|%T|%c|%m|%f|%G"

# By SLURM's own words (squeue(1), JOB STATE CODES).
_QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmNode:
    """A node as SLURM sees it."""

    name: str
    state: str
    """SLURM's own word, such as idle, or down* for one that does not answer."""
    cpus: int
    memory_mb: int
    features: frozenset[str]
    resources: str
    """Generic ones, such as gpu:a100:8."""


def submit(script: Path, *, without: Collection[str]) -> str:
    """Hand a script in: the job's id. Raises `ClusterError` with what sbatch says.

    The job gets this process's environment, but for the variables of `without`. SLURM keeps it, and
    can be set up to show it (AccountingStoreFlags=job_env).
    """
    command = ["sbatch", "--parsable", "--export=ALL", str(script)]
    try:
        answer = run(command, timeout_s=_TIMEOUT_S, without=without)
    except CommandError as error:
        raise ClusterError(f"slurm: the job is not taken: {_said(error)}") from error
    return answer.stdout.strip().split(";")[0]


def _said(error: CommandError) -> str:
    if error.returncode is None:
        return f"{error.why}. Submit from a machine that has SLURM's commands"
    lines = [line.removeprefix("sbatch: error: ") for line in error.stderr.splitlines()]
    return " ".join(lines)


def states(jobs: Sequence[str]) -> dict[str, JobState]:
    """What SLURM says of jobs now, by their ids; one that it has forgotten has ended a
    while ago. Two questions however many jobs there are: slurmctld serves all users.

    Raises `ClusterError` when SLURM cannot be asked.
    """
    gone = JobState(phase="ended", why="SLURM has forgotten it")
    found = dict.fromkeys(jobs, gone)
    listed = f"--jobs={','.join(found)}"
    # Waiting tasks of an array would be one line: --array.
    queue = ["squeue", "--noheader", "--array", "--states=all", listed, f"--format={_FORMAT}"]
    for line in _ask(queue):
        job, word, why, nodes = line.split("|")
        found[job] = JobState(
            phase=_phase(word), word=word, why="" if why == "None" else why, nodes=nodes
        )
    # Accounting lags behind a job's end by a second or two, and not every cluster has it.
    if forgotten := [job for job, state in found.items() if state is gone]:
        listed = f"--jobs={','.join(forgotten)}"
        fields = "--format=JobID,State"
        for line in _ask(["sacct", "--noheader", "--parsable2", "-X", listed, fields]):
            job, word = line.split("|")
            word = word.split(" ")[0]
            found[job] = JobState(phase=_phase(word), word=word)
    return found


def _phase(word: str) -> Phase:
    if word in _QUEUED:
        return "queued"
    return "running" if word in _RUNNING else "ended"


def _ask(command: list[str]) -> list[str]:
    """The lines that a command prints; none when SLURM does not know the job, or keeps no account.

    Of an id that it does not know squeue says so only when it is the only one.
    """
    try:
        return run(command, timeout_s=_TIMEOUT_S).stdout.split("\n")[:-1]
    except CommandError as error:
        forgotten = "Invalid job id" in error.stderr
        no_account = command[0] == "sacct"
        if forgotten or no_account:
            return []
        raise ClusterError(f"slurm: cannot be asked: {_said(error)}") from error


def cancel(job: str) -> None:
    """End a job at once, waiting or not. Raises `ClusterError` when SLURM does not."""
    try:
        run(["scancel", job], timeout_s=_TIMEOUT_S)
    except CommandError as error:
        raise ClusterError(f"slurm: job {job} cannot be ended: {_said(error)}") from error


def queue_again(job: str) -> None:
    """End a job and queue it again. Raises `ClusterError` when SLURM does not."""
    try:
        run(["scontrol", "requeue", job], timeout_s=_TIMEOUT_S)
    except CommandError as error:
        raise ClusterError(f"slurm: job {job} cannot be queued again: {_said(error)}") from error


def exclude(job: str, nodes: str) -> None:
    """Leave nodes out of what a job may get, in place of those left out before. SLURM 22.05 takes
    it only of jobs that wait: after `queue_again`. Of one from which it has taken a failed node
    itself it does only when the last process has ended: not from within the job. Raises
    `ClusterError`."""
    try:
        run(["scontrol", "update", f"JobId={job}", f"ExcNodeList={nodes}"], timeout_s=_TIMEOUT_S)
    except CommandError as error:
        raise ClusterError(
            f"slurm: job {job} does not leave out {nodes}: {_said(error)}"
        ) from error


def describe(job: str) -> dict[str, str]:
    """What SLURM says of a job, by its own keys: JobState, Restarts, Partition, ExcNodeList, …

    Raises `ClusterError` when SLURM cannot be asked, or has forgotten the job.
    """
    told = _told(["scontrol", "--oneliner", "show", "job", job])
    pairs = (word.partition("=") for word in told.split())
    return {key: value for key, equals, value in pairs if equals and value != "(null)"}


def names_of(nodes: str) -> list[str]:
    """The names in a list as SLURM writes it, such as `n[1-3],login`. Raises `ClusterError`."""
    return _told(["scontrol", "show", "hostnames", nodes]).split() if nodes else []


def nodes_of(partition: str) -> list[SlurmNode]:
    """The nodes of a partition. Raises `ClusterError`."""
    asked = ["sinfo", "--noheader", "--Node", f"--partition={partition}", f"--format={_NODE}"]
    found = []
    for line in _told(asked).splitlines():
        name, state, cpus, memory, features, resources = line.split("|")
        node = SlurmNode(
            name=name,
            state=state,
            cpus=int(cpus),
            memory_mb=int(memory),
            features=frozenset(features.split(",")),
            resources=resources,
        )
        found.append(node)
    return found


def _told(command: list[str]) -> str:
    try:
        return run(command, timeout_s=_TIMEOUT_S).stdout.strip()
    except CommandError as error:
        raise ClusterError(f"slurm: cannot be asked: {_said(error)}") from error
