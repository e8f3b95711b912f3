"""Holds the box that a lab lives in, and clears it away when the lab's owner is gone.

The box is one process, one network and one mount namespace; every machine is inside. Its owner
holds the other end of stdin: when that closes, for whatever reason, the box is killed and its
cgroups are removed. Runs in a mount namespace of its own, so nothing of it is seen outside.

    python -m lab.keeper ROOT ID       prints the process id of the box's first process
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from lab import system

_PARENT_LOOK_S = 0.5
_START_S = 120.0


def main(root: Path, lab_id: str) -> None:
    freezer = root / "cgroup"
    has_freezer = _mount_freezer(freezer)
    command = "unshare --net --pid --mount --propagation private --mount-proc --fork"
    with open(root / "log" / "box.log", "ab") as log:
        box = subprocess.Popen(
            [*command.split(), "--kill-child=SIGKILL", sys.executable, "-m", "lab.reaper"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        first = first_process(box.pid)
        # A process that was forked off the owner may hold the pipe open after the owner died.
        owner = os.getppid()
        print(first.pid, flush=True)
        while box.poll() is None and os.getppid() == owner:
            readable, _, _ = select.select([sys.stdin], [], [], _PARENT_LOOK_S)
            if readable and not os.read(sys.stdin.fileno(), 1024):
                break
    finally:
        _end(box)
        if has_freezer:
            remove_cgroups(freezer / lab_id)


def first_process(above: int, timeout_s: float = _START_S) -> psutil.Process:
    """The first process of the innermost process namespace that was made below process `above`.

    Raises `psutil.NoSuchProcess` when `above` ends, and `TimeoutError` when there is none.
    """
    end = time.monotonic() + timeout_s
    top = psutil.Process(above)
    while time.monotonic() < end:
        if top.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(above)
        for process in top.children(recursive=True):
            with suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                # Only the last of a chain of programs is started by `unshare --fork`.
                if ids.split()[-1] == "1" and "lab." in " ".join(process.cmdline()):
                    return process
        time.sleep(0.01)
    raise TimeoutError(f"no process namespace below process {above} after {timeout_s:g} s")


def _end(box: subprocess.Popen[bytes]) -> None:
    """Kill the box's first process; the one above it ends when nothing in the box is left."""
    try:
        first_process(box.pid).kill()
    except psutil.NoSuchProcess:
        pass  # it has ended by itself
    except TimeoutError:
        box.kill()
    box.wait()


def _mount_freezer(folder: Path) -> bool:
    """The cgroups by which SLURM tracks a job's processes; hosts with cgroup 2 have them too."""
    folder.mkdir()
    try:
        system.mount("cgroup", folder, "cgroup", "freezer")
    except OSError:
        return False
    return True


def remove_cgroups(top: Path) -> None:
    """Remove empty cgroups, the innermost first. The kernel needs a moment to empty them."""
    for _ in range(600):
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
        if not top.exists():
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
