"""Commands that use what was trained: ask, chat, predict, compare, combine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.arguments import OverridesArgument
from launcher.commands.exits import interruptible
from recipes.errors import RecipeError

use = typer.Typer()

_ADAPTER = "A run's folder, address, or name in ./runs; RUN@STEP; a checkpoint; an export."
RunsArgument = Annotated[list[str], typer.Argument(metavar="RUN…", help=_ADAPTER)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replaces the recipes', as base.source=DIR."),
]
MaxNewTokensOption = Annotated[int, typer.Option(help="Longest answer (tokens).", min=1)]
BatchSizeOption = Annotated[int, typer.Option(help="Rows that are computed at a time.", min=1)]
SystemOption = Annotated[str | None, typer.Option(help="System message; the recipe's if left out.")]


@use.command()
def generate(
    run: RunsArgument,
    prompt: Annotated[str, typer.Argument(help="What to answer.")],
    max_new_tokens: MaxNewTokensOption = 128,
    system: SystemOption = None,
    base: Annotated[bool, typer.Option("--base", help="Answer without the adapter.")] = False,
    changes: SetOption = None,
) -> None:
    """Let a run's adapter answer a prompt; of several adapters, each."""
    from rich.console import Console

    from launcher.terminal import open_display
    from launcher.using.answers import answer

    # The answer alone goes to the standard output.
    with interruptible(), open_display(Console(stderr=True, highlight=False)) as display:
        found = answer(
            run,
            prompt,
            display,
            overrides=changes or [],
            max_new_tokens=max_new_tokens,
            system=system,
            base_only=base,
        )
    for name, text in found.items():
        typer.echo(f"[{name}]\n{text}\n" if len(found) > 1 else text)


@use.command()
def chat(
    run: RunsArgument,
    system: SystemOption = None,
    max_new_tokens: MaxNewTokensOption = 512,
    temperature: Annotated[
        float, typer.Option(help="Of sampling; 0 takes the likeliest token.", min=0.0)
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Sample among the tokens with this share.", min=0.0, max=1.0)
    ] = 1.0,
    changes: SetOption = None,
) -> None:
    """Chat with adapters and their base; /help lists what can be typed.

    Through a pipe, each line is answered in turn.
    """
    from launcher.using.chat_terminal import chat_with

    if top_p == 0:
        raise RecipeError("--top-p = 0: leaves nothing to choose; 1 leaves everything")
    with interruptible():
        chat_with(
            run,
            overrides=changes or [],
            system=system,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
        )


@use.command()
def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help=_ADAPTER)],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Rows as they are trained on, with or without answers; a folder."
        ),
    ],
    overrides: OverridesArgument = None,
    to: Annotated[
        Path | None, typer.Option(metavar="OUT.jsonl", help="FILE.predicted.jsonl if left out.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="The recipe's if left out.", min=1)] = None,
    batch_size: BatchSizeOption = 8,
    max_new_tokens: MaxNewTokensOption = 128,
    choices: Annotated[
        bool, typer.Option("--choices/--no-choices", help="Among evaluate.choices, if any.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.jsonl.")] = False,
) -> None:
    """Predict for every row of a file, on any number of workers; a line for each, in order."""
    from launcher.predict.prediction import Wanted, check_target, predict, told
    from launcher.terminal import open_display

    to = to or Path(f"{Path(file).stem}.predicted.jsonl")
    check_target(to, force=force)
    wanted = Wanted(
        run=run,
        file=file,
        to=to,
        workers=workers,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        choices=choices,
    )
    with interruptible(), open_display() as display:
        found = predict(wanted, overrides or [], display)
    for line in told(found, to):
        display.line(line)


@use.command()
def compare(
    run: RunsArgument,
    prompts: Annotated[
        str, typer.Option(metavar="FILE", help="Rows as they are trained on, or a .txt of prompts.")
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="OUT.jsonl", help="Write the answers there, too.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base/--no-base", help="Let the base answer beside them.")
    ] = True,
    max_new_tokens: MaxNewTokensOption = 64,
    batch_size: BatchSizeOption = 8,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.jsonl.")] = False,
    changes: SetOption = None,
) -> None:
    """Let adapters, and their base, answer the same prompts: a table, and a line for each."""
    from launcher.predict.prediction import check_target
    from launcher.terminal import open_display
    from launcher.using.answers import compare, write_compared
    from launcher.using.compared_table import show

    if to is not None:
        check_target(to, force=force)
    with interruptible(), open_display() as display:
        names, rows = compare(
            run,
            prompts,
            display,
            overrides=changes or [],
            with_base=base,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
    if to is not None:
        write_compared(to, rows)
    show(names, rows)


@use.command()
def combine(
    run: RunsArgument,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the new adapter is written.")],
    weights: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="One for each; equal ones if left out.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Of PEFT: cat, svd, linear, ties, dare_ties, …")
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(help="Share that ties, dare, magnitude_prune keep.", min=0, max=1),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of svd methods.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of dare methods.")] = 0,
    changes: SetOption = None,
) -> None:
    """Combine adapters of one base into one, which is used as any other."""
    from launcher.exporting.combine import Wanted, combine, parse_weights
    from launcher.terminal import open_display

    wanted = Wanted(
        runs=run,
        weights=parse_weights(weights, run),
        to=to,
        method=method,
        density=density,
        rank=rank,
        seed=seed,
    )
    with interruptible(), open_display() as display:
        made = combine(wanted, changes or [], display)
    rank_told = f" of rank {made.rank}" if made.rank else ""
    typer.echo(
        f"Combined {len(run)} adapters by {made.recipe.method} into {to}: {made.kind}{rank_told}, "
        f"{made.numbers:,} numbers, which plain PEFT opens to the same"
    )
