"""Processes on nodes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from cluster import nodes

WORKER = "import time; print(flush=True); time.sleep(1000)"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    assert started.stdout is not None and started.stdout.readline()
    yield started
    started.kill()
    started.wait()
    started.stdout.close()


@pytest.mark.parametrize(
    ("command", "is_killed"),
    [
        (["ray::RayTrainWorker"], True),
        (["python", "another"], False),
        ([], False),  # as the kernel tells it of one that is just ending
    ],
)
def test_what_is_no_worker_any_more_is_left_alone(
    process: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    is_killed: bool,
):
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: command)
    nodes.kill_here([process.pid])
    if is_killed:
        process.wait(120)
    assert (process.poll() is not None) is is_killed
