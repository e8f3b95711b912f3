"""What a job of Ray's Jobs API runs on the cluster: the run that its ticket tells of."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from cluster.ray_jobs.ticket import Ticket
from launcher.records import jobs, requests, runs
from recipes import resolved
from recipes.address import is_address, join
from recipes.errors import InstallError, RecipeError, StorageError
from recipes.files import write_whole
from recipes.load import LoadedRecipe, load_text


def work_as_job(go_on: Callable[[Path], None]) -> None:
    """Drive the run of this job's ticket, with `go_on` from what is there of it already.

    Raises `ShoalError`.
    """
    ticket, loaded = own_ticket()
    run_dir = _run_folder(loaded, ticket)
    requests.forget(run_dir)
    if ticket.parent:
        runs.note_parent(run_dir, ticket.parent)
    write_whole(run_dir / "recipe.yaml", resolved.to_yaml(loaded))
    jobs.noted(run_dir, lambda: go_on(run_dir))


def own_ticket() -> tuple[Ticket, LoadedRecipe]:
    """This job's ticket and the recipe in it.

    Raises `RecipeError` outside of a job, `InstallError` when another shoal has submitted it.
    """
    try:
        ticket = Ticket.from_environment()
    except KeyError as error:
        raise RecipeError(
            f"shoal job: {error} is not set: this is no job of `shoal submit`"
        ) from error
    loaded = load_text(ticket.recipe.encode())
    _check_version(loaded, ticket)
    return ticket, loaded


def _check_version(loaded: LoadedRecipe, ticket: Ticket) -> None:
    if loaded.recipe.ray_job.code is not None:
        return  # it came along
    own = version("shoal")
    if own != ticket.version:
        raise InstallError(
            f"the cluster has shoal {own}, and {ticket.version} has submitted. Install the same "
            "on both, or send yours along with ray_job.code=FOLDER, a checkout of it"
        )


def _run_folder(loaded: LoadedRecipe, ticket: Ticket) -> Path:
    """The run's folder; made here when the submitter does not see this storage."""
    storage = loaded.recipe.storage
    if is_address(storage.path):
        return runs.find(join(storage.path, ticket.run), [f"storage.cache={storage.cache}"])
    runs.check_writable(storage.path)
    run_dir = Path(storage.path) / ticket.run
    try:
        run_dir.mkdir(parents=True)
    except FileExistsError:
        if jobs.key_of(run_dir) != ticket.key:
            raise StorageError(
                f"{run_dir}: is the folder of another run. Submit with another name=NAME"
            ) from None
    except OSError as error:
        raise StorageError(f"{run_dir}: cannot be made: {error.strerror}") from error
    else:
        jobs.set_key(run_dir, ticket.key)
    return run_dir
