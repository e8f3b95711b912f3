"""What a command takes: seconds from start to end, and of processors by all its processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.process import run

_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """`cpu_s` counts every process that was seen, to within a fifth of a second of its end; it is
    the same on a machine that has other things to do."""

    seconds: float
    cpu_s: float


def take(
    command: Sequence[str], folder: Path, *, timeout_s: float, env: Mapping[str, str] | None = None
) -> Taken:
    """Run a command in a folder to its end."""
    begin = time.perf_counter()
    cpu: dict[int, float] = {}
    over = threading.Event()
    before = {process.pid for process in psutil.Process().children()}

    def look() -> None:
        while not over.wait(_PAUSE_S):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if process.pid not in before:
                        times = process.cpu_times()
                        cpu[process.pid] = times.user + times.system

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        run(command, timeout_s=timeout_s, cwd=folder, env=env)
    finally:
        over.set()
        thread.join()
    return Taken(seconds=time.perf_counter() - begin, cpu_s=sum(cpu.values()))
