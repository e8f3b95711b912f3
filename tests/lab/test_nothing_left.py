"""However a lab ends, nothing of it stays: no process, and so no namespace, mount or link."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lab import config
from lab.keeper import remove_cgroups
from lab.lab import Lab, wait_until
from lab.machine import TESTS

pytestmark = pytest.mark.slurm

OWNER = """
import signal, sys, time
from pathlib import Path
from lab.lab import Lab

# Ignored where pytest runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Lab(Path(sys.argv[1]), machines=1) as lab:
    lab.machines[0].popen(["setsid", "sleep", "1000"])
    print(lab.id, flush=True)
    time.sleep(1000)
"""


def of_lab(root: Path) -> list[psutil.Process]:
    """Processes that see the lab's freezer: the keeper, the box, and all in it."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if f" {root}/cgroup " in Path(f"/proc/{process.pid}/mountinfo").read_text():
                found.append(process)
    return found


def links() -> str:
    """Network links where pytest is."""
    told = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    return told.stdout


def mounts(root: Path) -> list[str]:
    """The lab's mounts where pytest is."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(root) in line]


def cgroups(lab_id: str) -> list[Path]:
    return [file for file in Path("/sys/fs/cgroup").glob(f"*/{lab_id}") if file.exists()]


def test_a_lab_that_is_stopped(lab: Lab, tmp_path: Path) -> None:
    """Beside another one, with jobs of the same number under way."""
    before = links()
    theirs = lab.submit("--wrap=sleep 1000")
    lab.wait_for_job(theirs, "RUNNING")
    with Lab(tmp_path / "lab", machines=1) as other:
        for _ in range(int(theirs)):
            job = other.submit("--wrap=setsid sleep 1000 & wait")
        other.wait_for_job(job, "RUNNING", "PENDING")
        assert (links(), mounts(other.root)) == (before, [])
        assert cgroups(other.id)
        running = of_lab(other.root)
        assert len(running) > 5
    assert not any(process.is_running() for process in running)
    assert of_lab(other.root) == cgroups(other.id) == []
    assert links() == before
    assert lab.job(theirs)["JobState"] == "RUNNING"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_lab_whose_owner_is_ended(tmp_path: Path, number: int) -> None:
    before = links()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "lab")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert owner.stdout is not None
    lab_id = owner.stdout.readline().strip()
    assert lab_id and of_lab(tmp_path / "lab")
    owner.send_signal(number)
    owner.wait(120)
    owner.stdout.close()
    wait_until(lambda: not of_lab(tmp_path / "lab"), 120)
    assert cgroups(lab_id) == []
    assert (links(), mounts(tmp_path)) == (before, [])


def test_a_lab_whose_keeper_is_killed(tmp_path: Path) -> None:
    """The kernel ends the box all the same; empty cgroups are all that stays."""
    lab = Lab(tmp_path / "lab", machines=1)
    lab.start()
    assert lab._keeper is not None
    lab._keeper.send_signal(signal.SIGKILL)
    wait_until(lambda: not of_lab(lab.root), 120)
    lab.stop()
    for folder in cgroups(lab.id):
        remove_cgroups(folder)
    assert cgroups(lab.id) == []


def test_a_lab_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = links()
    monkeypatch.setattr(config, "slurm_conf", lambda *_, **__: "Nonsense=1\n")
    lab = Lab(tmp_path / "lab", machines=1)
    monkeypatch.setattr(lab, "wait_until_idle", lambda: pytest.fail("its nodes do not come up"))
    with pytest.raises(pytest.fail.Exception, match="do not come up"):
        lab.start()
    assert of_lab(lab.root) == cgroups(lab.id) == []
    assert (links(), mounts(tmp_path)) == (before, [])
