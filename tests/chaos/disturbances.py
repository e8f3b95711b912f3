"""What can happen to a run. Each disturbance does it once, and says what it did; None when it found
nothing to do it to."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from chaos.workplace import Command, wait_until

Disturbance = Callable[[Command, Path, random.Random], str | None]


def kill_rank(command: Command, run: Path, luck: random.Random) -> str | None:
    """A training process is gone."""
    return _kill_one(_when_there(command.ranks, command), luck)


def kill_driver(command: Command, run: Path, luck: random.Random) -> str:
    """The command itself is gone; its ranks notice later."""
    command.kill()
    return "killed the driver"


def kill_raylet(command: Command, run: Path, luck: random.Random) -> str | None:
    """Ray's own process on the node is gone, and with it all that ran under it."""
    return _kill_one(_when_there(command.raylets, command), luck)


def kill_rank_while_saving(command: Command, run: Path, luck: random.Random) -> str | None:
    """The writer is gone in the middle of a checkpoint."""
    if not _wait_for_writing(command, run, luck):
        return None
    return _kill_one(command.ranks(), luck)


def kill_driver_while_saving(command: Command, run: Path, luck: random.Random) -> str | None:
    if not _wait_for_writing(command, run, luck):
        return None
    command.kill()
    return "killed the driver"


def delay_rank(command: Command, run: Path, luck: random.Random) -> str | None:
    """A training process stands still for a moment and goes on."""
    return _stop_one(command, luck, seconds=luck.uniform(0.2, 3.0))


def stop_rank(command: Command, run: Path, luck: random.Random) -> str | None:
    """A training process stands still until it is killed for it."""
    return _stop_one(command, luck, seconds=None)


def flip_a_bit(command: Command, run: Path, luck: random.Random) -> str:
    """The driver is gone, and the newest checkpoint is not what it was."""
    command.kill()
    for process in command.ranks():  # one that lives could still publish a newer one
        process.kill()
    psutil.wait_procs(command.ranks(), timeout=10)
    return f"killed the driver and {spoil_newest(run, luck)}"


def spoil_newest(run: Path, luck: random.Random) -> str:
    """Flip one bit of one file of the newest checkpoint."""
    newest = max((run / "checkpoints").glob("step_*"), default=None)
    if newest is None:
        return "found no checkpoint to spoil"
    file = luck.choice(sorted(file for file in newest.rglob("*") if file.is_file()))
    content = bytearray(file.read_bytes())
    content[luck.randrange(len(content))] ^= 1 << luck.randrange(8)
    file.write_bytes(content)
    return f"flipped a bit of {file.relative_to(run)}"


def fill_the_disk(command: Command, run: Path, luck: random.Random) -> str:
    """No byte is free where the run is kept, for some seconds; that is a small disk of its own."""
    filler = run.parent / "filler"
    try:
        with filler.open("wb", buffering=0) as stream:
            while stream.write(b"\0" * 4096):
                pass
    except OSError:
        pass
    seconds = luck.uniform(1.0, 6.0)
    time.sleep(seconds)
    filler.unlink()
    return f"the disk was full for {seconds:.1f} s"


KILLS: dict[str, Disturbance] = {
    "rank": kill_rank,
    "driver": kill_driver,
    "raylet": kill_raylet,
    "rank while saving": kill_rank_while_saving,
    "driver while saving": kill_driver_while_saving,
}
OTHERS: dict[str, Disturbance] = {
    "delay": delay_rank,
    "hang": stop_rank,
    "bit flip": flip_a_bit,
    "full disk": fill_the_disk,
}


def _when_there(find: Callable[[], list[psutil.Process]], command: Command) -> list[psutil.Process]:
    """Processes, waited for: workers may just be starting."""
    wait_until(lambda: bool(find()), command)
    return find()


def _kill_one(processes: list[psutil.Process], luck: random.Random) -> str | None:
    if not processes:
        return None
    chosen = luck.choice(processes)
    chosen.kill()
    return f"killed process {chosen.pid}"


def _stop_one(command: Command, luck: random.Random, seconds: float | None) -> str | None:
    ranks = _when_there(command.ranks, command)
    if not ranks:
        return None
    chosen = luck.choice(ranks)
    chosen.send_signal(signal.SIGSTOP)
    if seconds is None:
        return f"stopped process {chosen.pid}"
    time.sleep(seconds)
    try:
        chosen.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return f"stopped process {chosen.pid}, which ended"
    return f"stopped process {chosen.pid} for {seconds:.1f} s"


def _wait_for_writing(command: Command, run: Path, luck: random.Random) -> bool:
    """Until a checkpoint is being written, and a moment more."""
    checkpoints = run / "checkpoints"

    def writing() -> bool:
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            if any(checkpoints.glob(".step_*")):
                return True
        return False

    if not wait_until(writing, command):
        return False
    time.sleep(luck.uniform(0.0, 0.015))
    return True
