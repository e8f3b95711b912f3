"""A folder with a tiny model, its data and a recipe, and runs of `shoal` in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SHOAL = str(Path(sys.executable).parent / "shoal")

RECIPE = """
description: A tiny model, trained while things break.
base: {{source: {base}, dtype: float32}}
data: {{train: train.jsonl, held_out: held_out.jsonl, sequence_length: 64}}
adapter: {{r: 4, alpha: 8, dropout: 0.1, targets: [q_proj, v_proj]}}
train: {{steps: {steps}, global_batch_size: 8, micro_batch_size: 2, learning_rate: {rate}}}
zero: {{stage: {stage}}}
cluster: {{workers: 2, device: cpu}}
checkpoint: {{every_steps: 20, keep: 3, prove: false}}
failure: {{max_restarts: 100, backoff_s: 0.5, start_s: 180, hang_s: 30}}
evaluate: {{before: false, generate: 0}}
storage: {{cache: cache, path: runs}}
"""


def make_workplace(folder: Path, *, steps: int = 300, stage: int = 0, rate: float = 1e-2) -> Path:
    """Fill an empty folder; the recipe is `tiny.yaml`.

    The usual learning rate is so high that the smallest difference soon shows; where rounding may
    differ, a lower one keeps it small.
    """
    from support import tiny

    folder.mkdir(parents=True, exist_ok=True)
    tiny.make_llama(folder / "llama")
    for name, numbers in (("train", range(96)), ("held_out", range(200, 208))):
        rows = [{"text": f"w{n % 90 + 5} w{n // 90}", "label": f"w{n % 2 + 1}"} for n in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = RECIPE.format(base=folder / "llama", steps=steps, stage=stage, rate=rate)
    (folder / "tiny.yaml").write_text(text)
    return folder


@contextmanager
def small_disk(folder: Path, megabytes: int = 24) -> Iterator[None]:
    """A disk in memory of this size in place of a folder. Needs the right to mount."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


@dataclass(slots=True)
class Command:
    """A `shoal` command under way, and every process it has started."""

    folder: Path
    arguments: tuple[str, ...]
    output: Path
    _process: subprocess.Popen[bytes] | None = None
    _seen: dict[int, psutil.Process] = field(default_factory=dict)

    def start(self) -> None:
        with self.output.open("ab") as stream:
            self._process = subprocess.Popen(
                [SHOAL, *self.arguments],
                cwd=self.folder,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def status(self) -> int | None:
        """Its exit status, or None while it lives."""
        assert self._process is not None
        self.descendants()
        return self._process.poll()

    def descendants(self) -> list[psutil.Process]:
        """Processes it started that live; those seen once are remembered."""
        try:
            for child in psutil.Process(self.pid).children(recursive=True):
                self._seen.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass
        return [process for process in self._seen.values() if process.is_running()]

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, the one of rank 0 first."""
        return [p for p in self.descendants() if "RayTrainWorker" in name_of(p)]

    def raylets(self) -> list[psutil.Process]:
        return [p for p in self.descendants() if name_of(p) == "raylet"]

    def wait(self, timeout_s: float) -> int:
        """Its exit status. Raises `TimeoutError` when it does not end."""
        end = time.monotonic() + timeout_s
        while (status := self.status()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"{' '.join(self.arguments)}: {self.tail()}")
            time.sleep(0.1)
        return status

    def kill(self) -> None:
        """The command alone, as a node that loses power would not: its ranks live on a moment."""
        self.descendants()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait(60)

    def clean_up(self) -> None:
        """End everything that was started and still lives."""
        for process in self.descendants():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(list(self._seen.values()), timeout=60)
        if self.status() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(60)

    def tail(self) -> str:
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-15:])


def name_of(process: psutil.Process) -> str:
    """How a process calls itself; Ray's workers put what they are into their title."""
    try:
        title = process.cmdline()
        return title[0].rpartition("/")[2] if title else process.name()
    except psutil.NoSuchProcess:
        return ""


def wait_until(ready: Callable[[], bool], command: Command, timeout_s: float = 300) -> bool:
    """Wait until something is so; False when the command has ended, whose ranks may live on."""
    end = time.monotonic() + timeout_s
    while command.status() is None:
        if ready():
            return True
        if time.monotonic() > end:
            raise TimeoutError(command.tail())
        time.sleep(0.02)
    return False


def steps_done(run: Path) -> int:
    """Lines of the run's curve."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0
