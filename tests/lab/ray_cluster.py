"""A Ray cluster over machines of a lab, without SLURM, kept up as whoever runs one would."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from lab.lab import PATIENCE_S, Lab, wait_until
from lab.machine import Machine

_OBJECT_STORE_BYTES = 100 * 2**20
_END_S = 10.0

# As systemd does with `Restart=always`: a raylet that was given up while its link was down ends
# itself as soon as it hears of it.
_SERVICE = 'while :; do "$@"; sleep 3; done'

QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Ray gives a machine that is cut off up within seconds; with its own settings after a minute."""
PATIENT = {
    "RAY_health_check_failure_threshold": "30",
    "RAY_grpc_keepalive_timeout_ms": "600000",
}
"""It is given up after six minutes, and no answer under way is lost before."""
# A raylet that is told to end would wait half a minute for its work.
_AT_ONCE = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}

# Agents of the node call themselves so too.
_WORKER = re.compile(r"ray::(?!\w+Agent\b)")

_ALIVE = """
import sys
from ray._raylet import GcsClient

for node in GcsClient(address=sys.argv[1]).get_all_node_info().values():
    if node.state == 0:
        print(node.node_manager_hostname)
"""


class RayCluster:
    """Ray on `machines`, the first of which is the head. Each has its own folder for Ray below its
    own /tmp, ports that were free, and starts Ray again when it ends; a password is asked for.

    with RayCluster(lab, lab.machines[:2]) as cluster:
        cluster.on(cluster.head, ["shoal", "run", recipe, "cluster.kind=ray"])

    `cpus` are what Ray may use of each machine. `dashboard` starts the dashboard, and with it the
    Jobs API; it needs `ray[default]`. `settings` are Ray's own, by the names of their variables.
    """

    def __init__(
        self,
        lab: Lab,
        machines: Sequence[Machine],
        *,
        cpus: int = 2,
        dashboard: bool = False,
        settings: Mapping[str, str] = QUICK,
    ) -> None:
        self.machines = list(machines)
        self.head = self.machines[0]
        self.address = ""
        """HOST:PORT, once it was started."""
        self.dashboard_url = ""
        """http://HOST:PORT, once it was started with a dashboard."""
        self.folder = f"/tmp/ray-{secrets.token_hex(4)}"
        """Ray's folder on each machine."""
        self._lab = lab
        self._cpus = cpus
        self._dashboard = dashboard
        self._token = lab.shared / f"{Path(self.folder).name}.token"
        self._settings = settings
        self._services: dict[str, subprocess.Popen[str]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs that is to use the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._token)}

    # --- beginning and end -------------------------------------------------------------------

    def start(self) -> RayCluster:
        """Start Ray on all machines, and wait until the head knows them."""
        self._token.touch(0o600)
        self._token.write_text(secrets.token_hex(32))
        try:
            self._start_head()
            for machine in self.machines[1:]:
                self.join(machine)
            self.wait_until_alive(self.machines)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End Ray on all machines that are on, as systemd would; only its logs stay, in `lab.root`.

        `ray stop` does not do: `ray start --block` takes what it does for no reason to end.
        """
        on = [machine for machine in self.machines if machine.is_on]
        for machine in on:
            self._end_service(machine)
        every = self._processes(on)
        for process in every:
            if " start " in _command(process):
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
        psutil.wait_procs(every, timeout=_END_S)
        while left := self._processes(on):  # those that were only starting, too
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)
        for machine in on:
            for number, logs in enumerate(machine.path(self.folder).glob("session_2*/logs")):
                kept = f"{Path(self.folder).name}-{machine.name}-{number}"
                shutil.copytree(logs, self._lab.root / "log" / kept)
            shutil.rmtree(machine.path(self.folder), ignore_errors=True)
        self._token.unlink(missing_ok=True)

    def __enter__(self) -> RayCluster:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- its machines ------------------------------------------------------------------------

    def join(self, machine: Machine, env: Mapping[str, str] | None = None) -> None:
        """Start Ray on a further machine, or on one that was without power; its workers have `env`
        too."""
        if machine not in self.machines:
            self.machines.append(machine)
        self._serve(machine, [f"--address={self.address}"], env)

    def alive(self) -> list[str]:
        """Names of the machines whose Ray is alive, as the head thinks."""
        return sorted(self.on(self.head, ["python", "-c", _ALIVE, self.address]).stdout.split())

    def wait_until_alive(self, machines: Sequence[Machine], timeout_s: float = PATIENCE_S) -> None:
        """Wait until the head thinks that Ray is alive on these machines and no others."""
        names = sorted(machine.name for machine in machines)
        wait_until(lambda: self.alive() == names, timeout_s, lambda: f"alive are {self.alive()}")

    def workers(self, machine: Machine) -> list[psutil.Process]:
        """Processes of runs on a machine: Ray's tasks and actors, by their titles, and such as wait
        for work."""
        return [process for process in machine.processes() if _WORKER.match(_command(process))]

    def ranks(self, machine: Machine) -> list[psutil.Process]:
        """Processes on a machine that train."""
        workers = self.workers(machine)
        return [each for each in workers if _command(each).startswith("ray::RayTrainWorker")]

    def with_a_rank(self) -> Machine:
        """A machine that trains and is not the head."""
        return next(m for m in self.machines[1:] if m.is_on and self.ranks(m))

    # --- commands ----------------------------------------------------------------------------

    def on(
        self,
        machine: Machine,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout_s: float = 300,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine to its end, able to use the cluster."""
        environment = {**self.environment, **(env or {})}
        return machine.run(command, env=environment, cwd=cwd, timeout_s=timeout_s, check=check)

    def popen(
        self,
        machine: Machine,
        command: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        stdout: int | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start a command on a machine, able to use the cluster."""
        return machine.popen(command, env=self.environment, cwd=cwd, stdout=stdout)

    # --- parts of the start ------------------------------------------------------------------

    def _start_head(self) -> None:
        options = ["--head", "--port=0"]
        if self._dashboard:
            port = self._free_port(self.head)
            self.dashboard_url = f"http://{self.head.address}:{port}"
            options += ["--include-dashboard=true", f"--dashboard-host={self.head.address}"]
            options += [f"--dashboard-port={port}"]
        else:
            options += ["--include-dashboard=false"]
        self._serve(self.head, options)
        file = self.head.path(self.folder) / "ray_current_cluster"
        wait_until(lambda: file.is_file() and bool(file.read_text()), PATIENCE_S, self._why)
        self.address = file.read_text().strip()

    def _serve(
        self, machine: Machine, options: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        start = ["ray", "start", *options, "--block", f"--node-ip-address={machine.address}"]
        start += [f"--num-cpus={self._cpus}", f"--temp-dir={self.folder}"]
        start += [f"--object-store-memory={_OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        start += ["--node-manager-port=0", "--object-manager-port=0"]
        start += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        environment = {**self.environment, **_AT_ONCE, **self._settings, **(env or {})}
        with self._log(machine).open("ab") as log:
            self._services[machine.name] = machine.popen(
                ["sh", "-c", _SERVICE, "sh", *start], env=environment, stdout=log.fileno()
            )

    def _end_service(self, machine: Machine) -> None:
        service = self._services.pop(machine.name, None)
        if service is not None and service.poll() is None:
            machine.signal(service, signal.SIGKILL)

    def _processes(self, machines: Sequence[Machine]) -> list[psutil.Process]:
        """Ray's own and those it has started, whose titles do not name a folder."""
        return [
            process
            for machine in machines
            for process in machine.processes()
            if self.folder in _command(process) or _command(process).startswith("ray::")
        ]

    @staticmethod
    def _free_port(machine: Machine) -> int:
        program = "import socket, sys; s = socket.create_server((sys.argv[1], 0))"
        program += "; print(s.getsockname()[1])"
        return int(machine.run(["python", "-c", program, machine.address]).stdout)

    def _log(self, machine: Machine) -> Path:
        return self._lab.root / "log" / f"{Path(self.folder).name}-{machine.name}.log"

    def _why(self) -> str:
        return f"Ray does not start: {self._log(self.head).read_text(errors='replace')[-2000:]}"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
