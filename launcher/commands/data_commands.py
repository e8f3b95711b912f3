"""Commands on data: prepare it, look at it, see and clear the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.arguments import OverridesArgument, RecipeArgument
from launcher.commands.exits import interruptible
from recipes.load import load

data = typer.Typer()

CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FOLDER", help="storage.cache of the recipes; $SHOAL_CACHE."),
]


@data.command()
def prepare(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all sources again, though they look unchanged.")
    ] = False,
) -> None:
    """Prepare a recipe's data and stop. What was interrupted goes on where it was."""
    from launcher import session
    from launcher.terminal import open_display

    kept = "what is prepared so far stays, and the same command goes on from there"
    with interruptible(kept, "run it again"), open_display() as display:
        prepared = session.prepare(load(recipe, overrides or []), display, verify=verify)
    display.line(f"Prepared data lies in {prepared.folder}")
    display.line(f"Look at it with: shoal inspect {prepared.folder.name[:12]}")


@data.command()
def cache(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]…", help="Only these; the beginning of a key will do."),
    ] = None,
    folder: CacheOption = None,
    unused: Annotated[
        str | None, typer.Option(metavar="30d", help="Only prepared data not used for so long.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Only what was begun and is not being made.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove them; name KEY, --unused or --partial.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what --remove would remove.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even what a run uses that has not ended.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """List what lies in the cache, or remove some of it.

    A run whose data was removed prepares it again.
    """
    from launcher.cached.command import list_cache, remove_from_cache
    from launcher.cached.removal import Wanted, seconds_of

    wanted = Wanted(
        keys=tuple(keys or ()),
        unused_s=None if unused is None else seconds_of(unused),
        partial=partial,
    )
    if remove or dry_run:
        remove_from_cache(folder, wanted, dry_run=dry_run, yes=yes, force=force)
    else:
        list_cache(folder, wanted, as_json=json)


@data.command()
def inspect(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|KEY|FOLDER",
            help="A recipe or run; the beginning of a key, see shoal cache; a prepared folder.",
        ),
    ],
    overrides: OverridesArgument = None,
    samples: Annotated[
        int, typer.Option(help="Sequences to show; with --rejected, rows for each reason.", min=0)
    ] = 3,
    seed: Annotated[int, typer.Option(help="Chooses the sequences.", min=0)] = 0,
    split: Annotated[str | None, typer.Option(help="train (default) or held_out.")] = None,
    row: Annotated[int | None, typer.Option(help="Show this sequence, whole.", min=0)] = None,
    sample: Annotated[int | None, typer.Option(help="Show this sample, by its id.")] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show rows set aside.")] = False,
    reason: Annotated[str | None, typer.Option(help="Show rows set aside for this reason.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write it as one page.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    cache_folder: CacheOption = None,
) -> None:
    """Look at prepared data: counts, lengths, and samples as the model sees them."""
    from launcher.inspection.command import Wanted
    from launcher.inspection.command import inspect as show

    wanted = Wanted(
        samples=samples,
        seed=seed,
        split=split,
        row=row,
        sample=sample,
        rejected=rejected or reason is not None,
        reason=reason,
    )
    show(what, overrides or [], wanted, cache=cache_folder, html=html, as_json=json)
