"""Answers side by side, for a person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.using.answers import Compared

_SHOWN_CHARACTERS = 300


def show(names: Sequence[str], rows: Sequence[Compared], console: Console | None = None) -> None:
    """A row for each prompt, a column for each who answered; and how many were right."""
    console = console or Console(highlight=False)
    judged = [row for row in rows if row.right is not None]
    table = Table(show_lines=True)
    for column in ["prompt", *names, *(["right"] if judged else [])]:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        if row.error is not None:
            continue
        cells = [row.prompt, *(row.answers[name] for name in names)]
        if judged:
            cells.append(row.right or "")
        table.add_row(*(Text(_short(cell)) for cell in cells))
    console.print(table)
    for row in rows:
        if row.error is not None:
            console.print(f"row {row.row}: {row.error}", markup=False, soft_wrap=True)
    for name in names if judged else ():
        same = sum(row.answers[name] == (row.right or "").strip() for row in judged)
        console.print(f"{name}: {same} of {len(judged)} are exactly right", markup=False)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARACTERS else flat[: _SHOWN_CHARACTERS - 1] + "…"
