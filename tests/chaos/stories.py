"""A run from its start to its end, through everything that happens to it."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.disturbances import Disturbance
from chaos.workplace import Command, steps_done, wait_until
from trainer.ledger import Entry, read_ledger

_END_S = 600.0
_WITHOUT_A_TRACE = ("delay", "full disk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What must not depend on what happened: every loss, every sample, the last state."""

    losses: tuple[float, ...]
    grad_norms: tuple[float, ...]
    ledger: tuple[Entry, ...]
    files: Mapping[str, str]  # sha256 of the last checkpoint's tensors


def trace_of(run: Path) -> Trace:
    """The trace of a finished run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    newest = max((run / "checkpoints").glob("step_*"))
    return Trace(
        losses=tuple(line["loss"] for line in lines),
        grad_norms=tuple(line["grad_norm"] for line in lines),
        ledger=tuple(read_ledger(run / "ledger").entries),
        files={
            str(file.relative_to(newest)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(newest.rglob("*.safetensors"))
        },
    )


@dataclass(slots=True, kw_only=True)
class Story:
    """What happened to a run."""

    run: Path
    happened: list[str] = field(default_factory=list)
    resumes: int = 0
    seconds: float = 0.0


def tell(
    folder: Path,
    name: str,
    disturbances: Sequence[tuple[str, Disturbance]],
    luck: random.Random,
) -> Story:
    """Run the workplace's recipe and disturb it, each time after some random progress.

    Whenever the command ends before the run does, it is resumed. Raises `AssertionError` when that
    is needed more than once for a disturbance.
    """
    teller = _Teller(folder, name, luck)
    begin = time.monotonic()
    try:
        for kind, disturb in disturbances:
            if not teller.go_on_for_a_while():
                break
            teller.disturb(kind, disturb)
        teller.go_on_to_the_end()
    finally:
        teller.clean_up()
    teller.story.seconds = time.monotonic() - begin
    return teller.story


class _Teller:
    def __init__(self, folder: Path, name: str, luck: random.Random) -> None:
        self.folder = folder
        self.luck = luck
        self.story = Story(run=folder / "runs" / name)
        self.output = folder / f"{name}.log"
        self.commands = [Command(folder, ("run", "tiny.yaml", f"name={name}"), self.output)]
        self.command.start()

    @property
    def command(self) -> Command:
        """The newest."""
        return self.commands[-1]

    def go_on_for_a_while(self) -> bool:
        """Wait for some steps, or sometimes only for new ranks; False when the run has ended."""
        run = self.story.run
        goal = steps_done(run) + self.luck.randint(1, 40)
        soon = self.luck.random() < 0.1
        while not wait_until(
            lambda: (soon and bool(self.command.ranks())) or steps_done(run) >= goal, self.command
        ):
            if finished(run):
                return False
            self._resume()
        return True

    def disturb(self, kind: str, disturb: Disturbance) -> None:
        step, attempts = steps_done(self.story.run), attempts_of(self.story.run)
        what = disturb(self.command, self.story.run, self.luck)
        if what is None:
            return
        self.story.happened.append(f"{kind} after step {step}: {what}")
        if kind not in _WITHOUT_A_TRACE:
            # The next one is to meet a run that has got over this one.
            wait_until(
                lambda: attempts_of(self.story.run) > attempts or finished(self.story.run),
                self.command,
                timeout_s=400,
            )

    def go_on_to_the_end(self) -> None:
        while self.command.wait(_END_S) != 0 or not finished(self.story.run):
            self._resume()

    def _resume(self) -> None:
        self.story.resumes += 1
        if self.story.resumes > len(self.story.happened):
            raise AssertionError(f"{self.story.happened}\n{self.command.tail()}")
        # A run that was killed before its folder was made begins anew.
        there = (self.story.run / "recipe.yaml").is_file()
        first = ("resume", str(self.story.run)) if there else self.commands[0].arguments
        self.commands.append(Command(self.folder, first, self.output))
        self.command.start()

    def clean_up(self) -> None:
        for command in self.commands:
            command.clean_up()


def attempts_of(run: Path) -> int:
    """How often workers were started."""
    file = run / "events.jsonl"
    return file.read_text().count('"event": "attempt"') if file.is_file() else 0


def finished(run: Path) -> bool:
    """Whether the run came to its end."""
    file = run / "events.jsonl"
    return file.is_file() and '"event": "finished"' in file.read_text()
