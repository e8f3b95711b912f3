"""The first process of a machine: gives it its name and its own files, and starts its services.

python -m lab.init SPEC            waits for a line on stdin until the network is there
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import reaper, system

SERVICES = "/tmp/slurm"  # sockets and state of the machine's services
PRIVATE = "/tmp/local"  # a folder every machine has, with other content


@dataclass(frozen=True, slots=True)
class Spec:
    """One machine: its name, its services, and which files are its own or everybody's."""

    name: str
    etc: str  # folder with hosts, nsswitch.conf, resolv.conf and slurm/
    own: str  # folder that is this machine's /tmp
    shared: list[str]  # folders below /tmp that all machines see
    cgroup: str | None  # the machine's cgroup, as seen by the keeper
    log: str
    shm_mb: int
    gpus: int
    services: list[list[str]]

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def main(spec: Spec) -> None:
    if not sys.stdin.readline():
        return  # whoever started the machine has given it up
    socket.sethostname(spec.name)
    if spec.cgroup is not None:
        _enter_cgroup(Path(spec.cgroup))
    _own_files(spec)
    _start_services(spec)
    Path(SERVICES, "up").touch()
    reaper.reap_until_left_alone()


def _enter_cgroup(folder: Path) -> None:
    """SLURM makes its cgroups below this one, so labs side by side do not meet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("1")
    system.see_own_cgroup_as_root()


def _own_files(spec: Spec) -> None:
    # The names of what stays shared are gone once /tmp is another folder; open files stay.
    kept = {folder: os.open(folder, os.O_PATH) for folder in sorted(spec.shared)}
    os.makedirs(spec.own, exist_ok=True)
    etc = os.open(spec.etc, os.O_PATH)
    system.bind(spec.own, "/tmp")
    os.chmod("/tmp", 0o1777)
    for folder, opened in kept.items():
        os.makedirs(folder, exist_ok=True)
        system.bind(opened, folder)
    system.mount("tmpfs", "/dev/shm", "tmpfs", f"size={spec.shm_mb}m,mode=1777")
    for name in ("hosts", "nsswitch.conf", "resolv.conf", "slurm"):
        opened = os.open(name, os.O_PATH, dir_fd=etc)
        system.bind(opened, f"/etc/{name}")
    for folder in (SERVICES, PRIVATE, "/tmp/ray"):
        os.makedirs(folder, exist_ok=True)
    Path(SERVICES, "up").unlink(missing_ok=True)
    for number in range(spec.gpus):
        device = Path(SERVICES, f"gpu{number}")
        if not device.exists():  # SLURM wants a device, whatever it does
            os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    if spec.cgroup is not None:
        freezer = Path(SERVICES, "cgroup", "freezer")
        freezer.mkdir(parents=True, exist_ok=True)
        system.mount("cgroup", freezer, "cgroup", "freezer")


def _start_services(spec: Spec) -> None:
    with open(spec.log, "ab") as log:
        munged = ["munged", "--foreground", "--force", "--num-threads=1"]
        munged += [f"--key-file={spec.etc}/munge.key", f"--socket={SERVICES}/munge.socket"]
        munged += [f"--pid-file={SERVICES}/munged.pid", f"--seed-file={SERVICES}/munged.seed"]
        Path(SERVICES, "munge.socket").unlink(missing_ok=True)
        subprocess.Popen(munged, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _wait_for_socket(f"{SERVICES}/munge.socket")
        for command in spec.services:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _wait_for_socket(path: str, timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            return
        time.sleep(0.01)
    raise TimeoutError(f"{path}: nobody listens after {timeout_s:g} s")


if __name__ == "__main__":
    main(Spec(**json.loads(sys.argv[1])))
