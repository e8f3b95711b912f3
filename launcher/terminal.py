"""What a run shows while it goes: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from launcher.pace import Pace

_LINE_EVERY_S = 10.0
_WIDE = 10_000
_LINE_EVERY_SHARE = 0.1


class Display(Protocol):
    """Shows the phases of a run. A total of 0 is unknown; a phase ends when done equals total.
    `rows` are those in what is done, where they are known."""

    def phase(self, name: str, done: int, total: int, *, rows: int = 0) -> None: ...

    def step(self, metrics: Mapping[str, Any]) -> None: ...

    def line(self, text: str) -> None: ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_display(console: Console | None = None) -> Display:
    """Bars when the console is a terminal, else lines without any control characters."""
    console = console or Console(highlight=False)
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


def seconds_text(seconds: float) -> str:
    """A duration as people write it: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def step_text(metrics: Mapping[str, Any]) -> str:
    """Loss, speed and time left of a step, in one line."""
    return (
        f"loss {metrics['loss']:.4f} · {metrics['tokens_per_s']:,.0f} tokens/s · "
        f"{seconds_text(metrics['seconds_left'])} left"
    )


def pace_text(pace: Pace, total: int) -> str:
    """`1,234,567 rows · 85,000 rows/s · 2 min 05 s left`, as far as it is known."""
    parts = [f"{pace.rows:,} rows"] if pace.rows else []
    if (speed := pace.rows_per_s()) is not None:
        parts.append(_speed_text(speed))
    if (left := pace.seconds_left(total)) is not None:
        parts.append(f"{seconds_text(left)} left")
    return " · ".join(parts)


def _speed_text(speed: float) -> str:
    return f"{speed:,.0f} rows/s" if speed >= 10 else f"{speed:.1f} rows/s"


def done_text(pace: Pace) -> str:
    """`1,234,567 rows · 85,000 rows/s` of a phase that is over; nothing where none were told."""
    parts = [f"{pace.rows:,} rows"] if pace.rows else []
    if (speed := pace.overall()) is not None:
        parts.append(_speed_text(speed))
    return " · ".join(parts)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))  # a bracket in a cell is no markup
    return table


class BarDisplay:
    """One bar a phase, kept when the phase is over, with the time it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def phase(self, name: str, done: int, total: int, *, rows: int = 0) -> None:
        self._begin(name, total)
        pace = self._paces.setdefault(name, Pace())
        pace.tell(time.monotonic(), done, rows)
        note = done_text(pace) if done == total else pace_text(pace, total) if total else ""
        self._progress.update(self._tasks[name], completed=done, total=total or None, note=note)

    def step(self, metrics: Mapping[str, Any]) -> None:
        self._begin("training", metrics["steps"])
        self._progress.update(
            self._tasks["training"],
            completed=metrics["step"],
            total=metrics["steps"],
            note=step_text(metrics),
        )

    def _begin(self, name: str, total: int) -> None:
        # A phase whose end nobody told is over when the next begins.
        for task in self._progress.tasks:
            if task.total is None and task.description != name:
                self._progress.update(task.id, completed=1, total=1)
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total or None, note="")

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._console.print(_table(title, columns, rows))


class LineDisplay:
    """A line when a phase begins and ends, and now and then how far it is: for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        console.width = _WIDE  # a log has no margin at which a table had to be folded
        self._begun: dict[str, float] = {}
        self._paces: dict[str, Pace] = {}
        self._phase_told = 0.0
        self._step_told: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def phase(self, name: str, done: int, total: int, *, rows: int = 0) -> None:
        now = time.monotonic()
        if name not in self._begun:
            self._begun[name] = self._phase_told = now
            self._paces[name] = Pace()
            self.line(f"{name} …")
        pace = self._paces[name]
        pace.tell(now, done, rows)
        if total and done == total:
            took = seconds_text(now - self._begun.pop(name))
            self.line(" · ".join(filter(None, [f"{name}: done in {took}", done_text(pace)])))
        elif total and now - self._phase_told >= _LINE_EVERY_S:
            self._phase_told = now
            how_far = f"{name} {done:,}/{total:,}"
            self.line(" · ".join(filter(None, [how_far, pace_text(pace, total)])))

    def step(self, metrics: Mapping[str, Any]) -> None:
        now, step, steps = time.monotonic(), metrics["step"], metrics["steps"]
        if self._step_told is not None and step != steps:
            then, told = self._step_told
            if now - then < _LINE_EVERY_S and step - told < _LINE_EVERY_SHARE * steps:
                return
        self._step_told = (now, step)
        self.line(f"step {step}/{steps} · {step_text(metrics)}")

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._console.print(_table(title, columns, rows))
