"""Several machines in this one: a real SLURM on them, in namespaces of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lab import config
from lab.config import CONTROL, Hardware
from lab.init import Spec
from lab.machine import ROOT, TESTS, Box, CommandFailed, Machine

_NETWORK = "10.77.0"  # exists inside the box only, and leads nowhere
_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")
# Administrators' programs are not on everybody's path.
_SEARCHED = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

PATIENCE_S = 600.0
"""How long is waited for what takes a minute at most where nothing else runs. Nothing is shown by
it: a machine may be slow, and others may use it."""

ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
"""States in which a job has ended."""


def missing() -> str | None:
    """Why there can be no lab here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in _PROGRAMS if shutil.which(name, path=_SEARCHED) is None]
    if absent:
        return f"needs {', '.join(absent)}; .ci/slurm installs them on Debian"
    alone = ["unshare", "--net", "--pid", "--mount", "--fork", "true"]
    refused = subprocess.run(alone, capture_output=True, text=True)
    return f"namespaces are refused: {refused.stderr.strip()}" if refused.returncode else None


class Lab:
    """`machines` that compute and `control`, where slurmctld runs and commands are given.

    Everything lives in one box of namespaces below one process; nothing of it is seen outside
    except processes and the files in `root`. `shared` are further folders below /tmp that all
    machines see; what lies outside /tmp they see anyhow.
    """

    def __init__(
        self,
        root: Path,
        *,
        machines: int = 2,
        hardware: Hardware | None = None,
        shared: Sequence[Path] = (),
    ) -> None:
        self.id = f"shoal-lab-{secrets.token_hex(4)}"
        self.root = root.resolve()
        self.shared = self.root / "shared"
        self.hardware = hardware or Hardware()
        self.addresses = {CONTROL: f"{_NETWORK}.10"}
        self.addresses |= {f"n{n}": f"{_NETWORK}.{10 + n}" for n in range(1, machines + 1)}
        self.machines: list[Machine] = []
        self._also_shared = shared
        self._keeper: subprocess.Popen[str] | None = None
        self._control: Machine | None = None

    @property
    def control(self) -> Machine:
        assert self._control is not None, "the lab was not started"
        return self._control

    # --- beginning and end -------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and wait until every node takes jobs."""
        try:
            self._write_files()
            box = self._open_box()
            made = [self._machine(box, name, address) for name, address in self.addresses.items()]
            self._control, *self.machines = made
            for machine in made:
                machine.start()
            self.wait_until_idle()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the lab. Its files in `root` stay, SLURM's logs among them."""
        every = [*self.machines, *([self._control] if self._control else [])]
        for machine in every:
            machine.power_off()
        if self._keeper is not None:
            assert self._keeper.stdin is not None and self._keeper.stdout is not None
            self._keeper.stdin.close()
            self._keeper.wait(PATIENCE_S)
            self._keeper.stdout.close()
            self._keeper = None
        for machine in every:
            machine.forget()
        self.machines, self._control = [], None

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- disturbances ------------------------------------------------------------------------

    def cut(self, machine: Machine) -> None:
        machine.cut()

    def heal(self, machine: Machine) -> None:
        machine.heal()

    def settle(self) -> None:
        """Undo what a test did: no jobs, processes or private files, every machine on and idle."""
        every = [self.control, *self.machines]
        for machine in every:
            if machine.is_on:
                machine.heal()
            else:
                machine.start()
        self.wait_until_control_answers()
        wait_until(self._cancelled, PATIENCE_S)
        for machine in every:
            machine.clear()
        for name, state in self.node_states().items():
            if state != "idle":  # a node that was taken out by hand stays so by itself
                resume = ["scontrol", "update", f"nodename={name}", "state=resume"]
                self.control.run(resume, check=False)
        self.wait_until_idle()

    def _cancelled(self) -> bool:
        """Whether there is no job; more than once, as one may just be queued again."""
        self.control.run(["scancel", "--user=root"])
        return not self.control.run(["squeue", "--noheader"]).stdout

    # --- SLURM -------------------------------------------------------------------------------

    def node_states(self) -> dict[str, str]:
        """What slurmctld thinks of each node, as `sinfo` says it: idle, alloc, down, …"""
        told = self.control.run(["sinfo", "--noheader", "--partition=main", "-N", "-o", "%N %t"])
        return dict(line.split() for line in told.stdout.splitlines())

    def wait_until_idle(self, timeout_s: float = PATIENCE_S) -> None:
        def idle() -> bool:
            with suppress(CommandFailed):  # slurmctld may not listen yet
                return set(self.node_states().values()) == {"idle"}
            return False

        wait_until(idle, timeout_s, lambda: f"the nodes do not come up; logs: {self.root}/log")

    def wait_until_control_answers(self, timeout_s: float = PATIENCE_S) -> None:
        def answers() -> bool:
            return self.control.run(["scontrol", "ping"], check=False).returncode == 0

        wait_until(answers, timeout_s, lambda: f"no slurmctld answers; logs: {self.root}/log")

    def submit(self, *arguments: str | Path) -> str:
        """`sbatch` with these arguments, from the shared folder; the job's id."""
        told = self.control.run(["sbatch", "--parsable", *arguments])
        return told.stdout.strip().partition(";")[0]

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, ExitCode, NodeList, Restarts, …"""
        told = self.control.run(["scontrol", "--oneliner", "show", "job", job_id])
        pairs = (word.partition("=") for word in told.stdout.split())
        return {name: value for name, equals, value in pairs if equals}

    def wait_for_job(
        self, job_id: str, *states: str, timeout_s: float = PATIENCE_S
    ) -> dict[str, str]:
        """The job once it is in one of these states; by default once it has ended."""
        wanted = states or ENDS
        wait_until(
            lambda: self.job(job_id)["JobState"] in wanted,
            timeout_s,
            lambda: f"job {job_id} is not {' or '.join(wanted)}: {self.job(job_id)}",
        )
        return self.job(job_id)

    # --- parts of the start ------------------------------------------------------------------

    def _write_files(self) -> None:
        for folder in self._also_shared:
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("etc/slurm", "log", "home", "shared"):
            (self.root / name).mkdir(parents=True)
        texts = {
            "hosts": config.hosts(self.addresses),
            "nsswitch.conf": config.NSSWITCH,
            "resolv.conf": "",
            "slurm/slurm.conf": config.slurm_conf(
                self.addresses,
                self.hardware,
                log=str(self.root / "log"),
                track_by_cgroup=_has_freezer(),
            ),
            "slurm/cgroup.conf": config.CGROUP_CONF,
            "slurm/gres.conf": config.gres_conf(self.hardware.gpus),
            "slurm/plugstack.conf": "",
        }
        for name, text in texts.items():
            (self.root / "etc" / name).write_text(text)
        key = self.root / "etc" / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))

    def _open_box(self) -> Box:
        alone = "unshare --mount --propagation private"
        self._keeper = subprocess.Popen(
            [*alone.split(), sys.executable, "-m", "lab.keeper", str(self.root), self.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            # A terminal's Ctrl-C is for the owner; the keeper ends when the owner has.
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            raise RuntimeError("the lab's keeper ended at once")
        box = Box(int(line), self.root, self.shared)
        box.network("link set lo up\nlink add switch type bridge\nlink set switch up")
        return box

    def _machine(self, box: Box, name: str, address: str) -> Machine:
        service = ["slurmctld", "-D"] if name == CONTROL else ["slurmd", "-D", "-N", name]
        spec = Spec(
            name=name,
            etc=str(self.root / "etc"),
            own=str(self.root / "machines" / name),
            shared=_hidden_by_tmp([self.root, ROOT, Path(sys.prefix), *self._also_shared]),
            cgroup=str(self.root / "cgroup" / self.id / name) if _has_freezer() else None,
            log=str(self.root / "log" / f"{name}.log"),
            shm_mb=self.hardware.shm_mb,
            gpus=self.hardware.gpus,
            services=[service],
        )
        return Machine(name, address, box, spec)


def wait_until(
    condition: Callable[[], bool],
    timeout_s: float = PATIENCE_S,
    why: Callable[[], str] = lambda: "it did not happen",
) -> None:
    """Look again and again. Raises `TimeoutError` with the reason."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {timeout_s:g} s: {why()}")
        time.sleep(0.1)


def _hidden_by_tmp(folders: Sequence[Path]) -> list[str]:
    """Of these folders those that a machine's own /tmp would hide, none inside another."""
    paths = {folder.resolve() for folder in folders}
    below = sorted(path for path in paths if Path("/tmp") in path.parents)
    return [str(path) for path in below if not set(path.parents) & set(below)]


def _has_freezer() -> bool:
    """Whether the kernel can track a job's processes by a cgroup."""
    lines = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()]
    return any(line[0] == "freezer" and line[3] == "1" for line in lines)
