"""One machine of a lab: commands on it, its power, and a look at what is there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lab.config import environment
from lab.init import PRIVATE, SERVICES, Spec
from lab.keeper import first_process

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
_SERVICE_NAMES = ("munged", "slurmd", "slurmctld", "slurmscriptd")


class CommandFailed(AssertionError):
    """A command on a machine ended with a status other than 0, or not in time."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where all machines of a lab are: the process that holds it, and its files."""

    pid: int
    root: Path
    shared: Path  # a folder that all machines see, and where their commands begin

    def network(self, commands: str) -> None:
        """Tell the switch between the machines what to do, in the words of `ip -batch`."""
        _ip(self.pid, commands)


@dataclass(slots=True)
class Machine:
    """A host with its own name, address, processes, /tmp and /dev/shm."""

    name: str
    address: str
    box: Box
    spec: Spec
    _chain: subprocess.Popen[bytes] | None = None
    _pid: int | None = None
    _popened: list[subprocess.Popen[str]] = field(default_factory=list)

    # --- power -------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self._chain is not None and self._chain.poll() is None

    def start(self) -> None:
        """Turn it on, and wait until its services were started."""
        assert not self.is_on, f"{self.name} is on"
        enter = ["nsenter", f"--target={self.box.pid}", "--pid", "--mount"]
        new = "unshare --net --uts --ipc --pid --mount --propagation private --mount-proc"
        new += " --fork --kill-child=SIGKILL"
        with open(self.spec.log, "ab") as log:
            self._chain = subprocess.Popen(
                [*enter, *new.split(), sys.executable, "-m", "lab.init", self.spec.to_json()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
                start_new_session=True,
            )
        try:
            self._pid = first_process(self._chain.pid).pid
            self._plug_in()
            assert self._chain.stdin is not None
            # Whoever waits for this line has its network now. The pipe stays open: it holds the
            # machine as the keeper's holds the box.
            self._chain.stdin.write(b"\n")
            self._chain.stdin.flush()
            self._wait_until_up()
        except BaseException:
            self.power_off()
            raise

    def power_off(self) -> None:
        """As if the plug was pulled: nothing on it gets to do anything more."""
        if self._chain is None:
            return
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        else:
            self._chain.kill()
        self._chain.wait()
        assert self._chain.stdin is not None
        self._chain.stdin.close()
        self._chain = self._pid = None
        with suppress(CommandFailed):  # the kernel removes it too, but only some time later
            self.box.network(f"link del {self._plug}")

    # --- network -----------------------------------------------------------------------------

    @property
    def _plug(self) -> str:
        """The switch's end of this machine's cable."""
        return f"to-{self.name}"

    def cut(self) -> None:
        """Pull the network cable; what runs on the machine runs on."""
        self.box.network(f"link set {self._plug} down")

    def heal(self) -> None:
        self.box.network(f"link set {self._plug} up")

    def _plug_in(self) -> None:
        self.box.network(
            f"link add {self._plug} type veth peer name eth0 netns {self.pid}\n"
            f"link set {self._plug} master switch up"
        )
        # Nobody forwards anything; without a default route Ray does not find its own address.
        _ip(
            self.pid,
            "link set lo up\n"
            f"address add {self.address}/24 dev eth0\n"
            "link set eth0 up\n"
            "route add default dev eth0",
        )

    # --- commands ----------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The machine's first process, by the number that it has outside."""
        assert self._pid is not None, f"{self.name} is off"
        return self._pid

    def popen(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdout: int | None = subprocess.DEVNULL,
        stderr: int | None = subprocess.STDOUT,
    ) -> subprocess.Popen[str]:
        """Start a command on the machine; `env` is added to what a login has.

        The process returned is the way in. To send the command itself a signal, use `signal`.
        """
        process = subprocess.Popen(
            [*self._way_in(cwd), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=self.environment(env),
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._popened.append(process)
        return process

    def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout_s: float = 300,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine to its end. Raises `CommandFailed`."""
        process = self.popen(
            command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            out, err = _kill(process)
            why = f"had not ended after {timeout_s:g} s"
            raise CommandFailed(_told(self.name, command, why, out, err)) from None
        except BaseException:
            _kill(process)
            raise
        if check and process.returncode != 0:
            why = f"failed with status {process.returncode}"
            raise CommandFailed(_told(self.name, command, why, out, err))
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def interact(self, command: Sequence[str]) -> int:
        """Run a command on this terminal; return its exit status."""
        return subprocess.run([*self._way_in(None), *command], env=self.environment()).returncode

    @staticmethod
    def signal(process: subprocess.Popen[str], number: int) -> None:
        """Send a signal to a command that `popen` started."""
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it has just ended
                child.send_signal(number)

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        home, programs = str(self.box.root / "home"), [str(Path(sys.executable).parent)]
        return {**environment(os.environ, home=home, programs=programs), **(env or {})}

    def _way_in(self, cwd: str | Path | None) -> list[str]:
        spaces = "--mount --uts --ipc --net --pid --cgroup"
        enter = ["nsenter", f"--target={self.pid}", *spaces.split()]
        return [*enter, "env", f"--chdir={cwd or self.box.shared}"]

    # --- what is there -----------------------------------------------------------------------

    def processes(self, *, of_services: bool = False) -> list[psutil.Process]:
        """What runs on it, by the numbers outside; its own services only when asked for."""
        if not self.is_on:
            return []
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/ns/pid") != space:
                    continue
                own = process.pid == self.pid or process.name() in _SERVICE_NAMES
                if process.status() != psutil.STATUS_ZOMBIE and (of_services or not own):
                    found.append(process)
        return found

    def path(self, inside: str | Path) -> Path:
        """Where a file of this machine can be seen from outside, as long as the machine is on."""
        return Path(f"/proc/{self.pid}/root/{str(inside).lstrip('/')}")

    @property
    def private(self) -> Path:
        """The folder `PRIVATE`, which has the same name on every machine, seen from outside."""
        return self.path(PRIVATE)

    def shared_memory(self) -> list[str]:
        """The files in its /dev/shm."""
        top = self.path("/dev/shm")
        return sorted(str(file.relative_to(top)) for file in top.rglob("*") if file.is_file())

    def clear(self) -> None:
        """Kill what runs on it besides its services; empty /dev/shm and `private`."""
        while left := self.processes():  # those that others have only begun, too
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)
        self.forget()
        for file in [*self.path("/dev/shm").iterdir(), *self.private.iterdir()]:
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink()

    def forget(self) -> None:
        """Let go of what `popen` started, all of which has ended or been killed."""
        for process in self._popened:
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._popened.clear()

    def _wait_until_up(self, timeout_s: float = 120.0) -> None:
        end = time.monotonic() + timeout_s
        while not self.path(f"{SERVICES}/up").exists():
            if not self.is_on or time.monotonic() > end:
                told = Path(self.spec.log).read_text(errors="replace")[-2000:]
                raise TimeoutError(f"{self.name} does not start:\n{told}")
            time.sleep(0.02)


def _ip(pid: int, commands: str) -> None:
    """Run `ip -batch` in the network of a process."""
    done = subprocess.run(
        ["nsenter", f"--target={pid}", "--net", "ip", "-batch", "-"],
        input=commands + "\n",
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise CommandFailed(f"ip: {commands}\n{done.stderr}")


def _kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def _told(name: str, command: Sequence[str | Path], why: str, stdout: str, stderr: str) -> str:
    shown = " ".join(map(str, command))
    return f"{name}: `{shown}` {why}\n{stdout[-4000:]}\n{stderr[-4000:]}"
