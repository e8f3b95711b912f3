"""What `shoal cache` does."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import typer

from launcher.cached import table
from launcher.cached.entries import other_entries, partial_entries, prepared_entries
from launcher.cached.removal import Entry, Wanted, choose, remove, why_kept
from launcher.terminal import open_display
from recipes.errors import RecipeError
from recipes.storage import default_cache


def _folder(given: Path | None) -> Path:
    folder = given or Path(default_cache())
    if given is not None and not folder.is_dir():
        raise RecipeError(f"--cache {folder}: there is no such folder")
    return folder.resolve()


def list_cache(given: Path | None, wanted: Wanted, *, as_json: bool) -> None:
    """Show what lies in a cache, or what is meant of it."""
    folder, now = _folder(given), time.time()
    prepared, partial = choose(wanted, prepared_entries(folder), partial_entries(folder), now)
    others = [] if wanted.says_something else list(other_entries(folder))
    if as_json:
        found = table.as_json(str(folder), prepared, partial, others)
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    if not (prepared or partial or others):
        typer.echo(f"{folder}: holds nothing of the kind")
        return
    typer.echo(f"{folder}: {table.sum_line([*prepared, *partial, *others])}")
    display = open_display()
    if prepared:
        rows = table.prepared_rows(prepared, now)
        display.table("Prepared data", table.PREPARED_COLUMNS, rows)
    if partial:
        display.table("Not finished", table.PARTIAL_COLUMNS, table.partial_rows(partial, now))
    if others:
        display.table("Others", table.OTHER_COLUMNS, table.other_rows(others))


def remove_from_cache(
    given: Path | None, wanted: Wanted, *, dry_run: bool, yes: bool, force: bool
) -> None:
    """Remove what is meant, but for what is in use.

    Raises `RecipeError` when nothing is named, or nobody can be asked; exits with 1 when something
    that was named stays.
    """
    if not wanted.says_something:
        raise RecipeError("--remove: names nothing. Add KEY, --unused 30d or --partial")
    folder = _folder(given)
    prepared, partial = choose(
        wanted, prepared_entries(folder), partial_entries(folder), time.time()
    )
    going: list[Entry] = []
    kept: list[tuple[Entry, str]] = []
    every: list[Entry] = [*prepared, *partial]
    for entry in every:
        why = why_kept(entry)
        # What is being made goes at no one's word.
        if why is None or (force and entry in prepared):
            going.append(entry)
        else:
            kept.append((entry, why))
    for entry in going:
        typer.echo(f"{'Would remove' if dry_run else 'To remove'}: {table.described(entry)}")
    for line in table.lines_of_kept(kept):
        typer.echo(f"Stays: {line}")
    if not going:
        typer.echo("There is nothing to remove")
    elif not dry_run:
        _ask(going, yes=yes)
        for entry in going:
            remove(folder, entry)
        typer.echo(f"Removed {table.sum_line(going)}")
    if kept and wanted.keys:
        raise typer.Exit(1)


def _ask(entries: list[Entry], *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise RecipeError("--remove: nobody can be asked here; --yes removes without asking")
    typer.confirm(f"Remove {table.sum_line(entries)}?", abort=True)
