"""Commands on runs wherever they run: hand in, list, look, read what they print, stop."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.job_words import INTERRUPTED
from launcher.commands.arguments import OverridesArgument, RecipeArgument, RunArgument
from launcher.commands.exits import exit_as, interruptible, status_of
from recipes.address import is_address
from recipes.errors import RecipeError
from recipes.load import load

if TYPE_CHECKING:
    from cluster.job import Job

commands = typer.Typer()


@commands.command()
def submit(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    only_show: Annotated[
        bool, typer.Option("--dry-run", help="Show the script that would be submitted.")
    ] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,C", help="A run for each value; given again, for all pairs."),
    ] = None,
    at_most: Annotated[
        int | None, typer.Option(help="Runs of a sweep that go on at the same time.", min=1)
    ] = None,
) -> None:
    """Submit a run, or the runs of a sweep, to the scheduler that cluster.kind names."""
    from launcher.scheduled import submit as submitting

    if sweep:
        _submit_sweep(recipe, overrides or [], sweep, at_most, only_show=only_show)
        return
    if at_most is not None:
        raise RecipeError("--at-most: is for a sweep; name its values with --sweep KEY=A,B,C")
    loaded = load(recipe, overrides or [])
    if only_show:
        typer.echo(submitting.dry_run(loaded), nl=False)
        return
    tell_submitted(*submitting.submit(loaded))


def tell_submitted(run_dir: Path, job: Job) -> None:
    from launcher.records import runs

    place = runs.name_of(run_dir)
    typer.echo(f"Submitted {run_dir.name} as {job.kind} job {job.id}; it lies in {place}")
    typer.echo(f"Follow it with: shoal logs -f {runs.called(run_dir)}")


def _submit_sweep(
    recipe: str, overrides: list[str], sweeps: list[str], at_most: int | None, *, only_show: bool
) -> None:
    from launcher.records import runs
    from launcher.scheduled import sweep
    from launcher.terminal import open_display
    from recipes.sweep import members

    found = members(recipe, overrides, sweeps)
    if only_show:
        typer.echo(sweep.dry_run(found, at_most), nl=False)
        return
    submitted = sweep.submit(found, at_most)
    rows = [
        [run_dir.name, job.id, *member.changes.values()]
        for member, (run_dir, job) in zip(found, submitted, strict=True)
    ]
    first, job = submitted[0]
    typer.echo(f"Submitted {len(found)} runs to {job.kind}; they lie in {first.parent}")
    open_display().table("", ["run", "job", *found[0].changes], rows)
    all_of = f"shoal ps{_storage_option(first.parent)}"
    typer.echo(f"See them with: {all_of}; follow one with: shoal logs -f {runs.called(first)}")


def _storage_option(storage: Path) -> str:
    """What makes `shoal ps` list this folder."""
    from launcher.records import runs

    is_default = storage.resolve() == runs.usual_storage().resolve()
    return "" if is_default else f" --storage {shlex.quote(str(storage))}"


def wait_for_job(run_dir: Path, job: Job) -> None:
    """Show what a job prints until it has ended, and end as it did."""
    typer.echo(
        f"Submitted {run_dir.name} as {job.kind} job {job.id}; it goes on without this shoal"
    )
    try:
        _print_log(run_dir, rank=None, follow=True)
    except KeyboardInterrupt:
        from launcher.records import runs

        called = runs.called(run_dir)
        typer.echo(
            f"shoal: {run_dir.name} goes on. Follow it with `shoal logs -f {called}`, end it with "
            f"`shoal stop {called}`",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    from launcher.records import looking

    told = looking.see(run_dir).told
    if told.word != "finished":
        typer.echo(f"shoal: {run_dir.name}: {told.word}: {told.text}", err=True)
        raise typer.Exit(INTERRUPTED if told.word == "stopped" else 1)


@commands.command()
def ps(
    storage: Annotated[
        str, typer.Option(metavar="FOLDER", help="The folder that holds the runs.")
    ] = "runs",
) -> None:
    """List runs, the last changed last."""
    from launcher.records import looking
    from launcher.terminal import open_display

    if is_address(storage):
        raise RecipeError(
            f"--storage {storage}: only a folder's runs are listed. Name one by its address: "
            f"shoal status {storage.rstrip('/')}/RUN"
        )
    seen = looking.see_all(Path(storage).expanduser())
    if not seen:
        typer.echo(f"There are no runs in {storage}")
        return
    open_display().table("", looking.COLUMNS, looking.rows(seen))


@commands.command()
def status(run: RunArgument) -> None:
    """Tell how a run is, and what happened to it last."""
    from launcher.records import looking, runs

    run_dir = runs.find(run)
    seen = looking.see(run_dir)
    place = f" ({seen.job.kind} job {seen.job.id})" if seen.job else ""
    typer.echo(f"{seen.name}{place}: {seen.told.word}. {seen.told.text}".rstrip(". "))
    if seen.step is not None:
        typer.echo(f"  step {seen.step}, loss {seen.loss:.4f}")
    typer.echo(f"  folder {run_dir}")
    for line in looking.recent_events(run_dir, 10):
        typer.echo(f"  {line}")


@commands.command()
def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    rank: Annotated[
        int | None,
        typer.Option(help="Of this rank; left out, of the job, or of rank 0 without one.", min=0),
    ] = None,
) -> None:
    """Show what a run prints."""
    from launcher.records import runs

    with interruptible():
        _print_log(runs.find(run), rank=rank, follow=follow)


def _print_log(run_dir: Path, *, rank: int | None, follow: bool) -> None:
    from launcher.records import looking

    for part in looking.read_log(run_dir, rank=rank, follow=follow):
        typer.echo(part, nl=False)


@commands.command()
def stop(
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="Without saving first; jobs only.")] = False,
) -> None:
    """Let a run save and stop after its step, wherever it runs. `shoal resume` goes on with it."""
    from launcher.records import runs
    from launcher.scheduled.submit import stop_run

    typer.echo(stop_run(runs.find(run), now=now))


@commands.command(hidden=True)
def node(run_dir: Path) -> None:
    """What a job's script runs on each of its nodes."""
    from launcher.scheduled.node import work_as_node

    raise typer.Exit(work_as_node(run_dir, lambda: go_on(run_dir, []), status_of))


@commands.command("doctor-node", hidden=True)
def examine_as_node(
    folder: Path, network: Annotated[bool, typer.Option("--network/--no-network")] = True
) -> None:
    """What the script of `shoal doctor` runs on each of its job's nodes."""
    from launcher.doctor.slurm_job import write_report
    from launcher.scheduled.node import work_as_node
    from launcher.terminal import open_display

    def drive() -> None:
        with interruptible(), open_display() as display:
            raise typer.Exit(write_report(folder, display, measure_network=network))

    raise typer.Exit(work_as_node(folder, drive, status_of))


@commands.command("doctor-job", hidden=True)
def examine_as_job(
    network: Annotated[bool, typer.Option("--network/--no-network")] = True,
) -> None:
    """What a job of `shoal doctor` runs on a Ray cluster."""
    from launcher.doctor.ray_job import print_report
    from launcher.terminal import open_display

    with interruptible(), open_display() as display:
        raise typer.Exit(print_report(display, measure_network=network))


@commands.command("job", hidden=True)
def work_as_job() -> None:
    """What a job of Ray's Jobs API runs on the cluster."""
    from launcher.scheduled import job_entry

    job_entry.work_as_job(lambda run_dir: go_on(run_dir, []))


def go_on(run_dir: Path, overrides: list[str], *, fork: bool = False) -> None:
    from launcher import session
    from launcher.records.summary import show_outcome
    from launcher.terminal import open_display

    begin = session.fork if fork else session.resume
    with interruptible(), open_display() as display:
        outcome = begin(run_dir, overrides, display)
    show_outcome(outcome, display)
    exit_as(outcome)
