"""A run from its recipe to its result: prepare, train, evaluate, and tell what came of it.

torch and Ray are imported only once something is really started.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.base_ref import base_ref, locate
from adapters.checkpoint_folder import check_base, check_data, reseal
from adapters.mirror import address_of, open_mirror
from cluster.inside import is_inside
from cluster.job_words import PREEMPTED
from launcher import prepared_summary
from launcher.common_ground import check_nodes, make_folders
from launcher.plan import record
from launcher.positions import check_length
from launcher.prepare.found import Prepared, find_prepared
from launcher.prepare.pipeline import prepare as prepare_data
from launcher.prepare.sources.source import find_sources
from launcher.prepare.usage import note_run
from launcher.records import runs
from launcher.records.following import followed
from launcher.records.requests import ask_to_stop, forget, heard
from launcher.terminal import Display
from recipes import address, environment, resolved
from recipes.data.shapes import ONLY_PREPARED
from recipes.errors import (
    CheckpointError,
    DataError,
    NodesLostError,
    RecipeError,
    ShoalError,
    StorageError,
)
from recipes.files import write_whole
from recipes.load import LoadedRecipe, load
from recipes.recipe import Recipe

if TYPE_CHECKING:
    from cluster.ray_cluster import Connection
    from trainer.job import Job


_EARLIER_START_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. Stopped before its end, for a reason of `driving.drive`, it can be
    resumed."""

    run_dir: Path
    name: str
    """By what a person calls the run: its address, or its folder."""
    task: str
    steps: int
    stopped: str | None
    checkpoint: Path | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def _base_folder(recipe: Recipe, display: Display) -> Path:
    """Where the base lies, fetched or converted if need be: here, before there is any worker.
    Raises `RecipeError` when it cannot take sequences as long as the recipe's."""
    folder = locate(recipe.base, Path(recipe.storage.cache), tell=display.line)
    check_length(recipe, folder, display.line)
    return folder


def prepare(loaded: LoadedRecipe, display: Display, *, verify: bool = False) -> Prepared:
    """Prepare a recipe's data, or find it prepared. With `verify` its sources are read whole, even
    if they look as they did when they were last read."""
    recipe = loaded.recipe
    base_folder = _base_folder(recipe, display)
    # To start Ray takes longer than all the rest where the data is there.
    cache = Path(recipe.storage.cache)
    found = None if verify else find_prepared(recipe, base_folder=base_folder, cache=cache)
    if found is not None:
        _tell(found, display)
        return found
    from cluster.ray_cluster import connected

    with connected_with_display(connected, recipe, display):
        return _prepare(recipe, base_folder, display, verify=verify)


def run(loaded: LoadedRecipe, display: Display, *, resume: bool = False) -> Outcome:
    """Do what a recipe says. With `resume`, its newest run goes on from its newest checkpoint."""
    recipe = loaded.recipe
    earlier = None
    if resume:
        earlier = runs.latest(recipe.storage.path, recipe.name, Path(recipe.storage.cache))
    return _run(loaded, display, earlier=earlier)


def resume(run_dir: Path, overrides: Sequence[str], display: Display) -> Outcome:
    """Go on with a run from its newest checkpoint, on other workers or another stage if need be."""
    return _run(load(run_dir / "recipe.yaml", overrides), display, earlier=run_dir)


def fork(run_dir: Path, overrides: Sequence[str], display: Display) -> Outcome:
    """Go on from a run's newest checkpoint as a run of its own, whatever is changed."""
    loaded = load(run_dir / "recipe.yaml", overrides)
    return _run(loaded, display, forked=run_dir)


def _run(
    loaded: LoadedRecipe,
    display: Display,
    *,
    earlier: Path | None = None,
    forked: Path | None = None,
) -> Outcome:
    recipe = loaded.recipe
    _check_said(recipe)
    environment.values(recipe.cluster.env)  # raises for what is not set, before anything is started
    if earlier is not None:
        runs.check_same(earlier, recipe)
    base_folder = _base_folder(recipe, display)
    storage, cache = _storage(recipe, earlier), Path(recipe.storage.cache)
    runs.check_writable(storage)
    find_sources(recipe.data, cache)
    from cluster.ray_cluster import connected, resources, uses_gpu
    from cluster.room import free_bytes
    from launcher.driving.drive import import_ray_train
    from launcher.driving.preflight import Preflight, check_best_by, check_room

    with connected_with_display(connected, recipe, display) as connection:
        gpu = uses_gpu(recipe.cluster, resources())
        check_nodes(recipe, make_folders(storage, cache), base_folder, display)
        preflight = Preflight(recipe, base_folder)
        prepared = _prepare(recipe, base_folder, display)
        check_trained(prepared)
        check_best_by(recipe, prepared.manifest)
        import_ray_train()
        work = cache if address.is_address(storage) else Path(storage)
        check_room(recipe, free_bytes(work), preflight.land())
        run_dir = earlier or runs.create(storage, recipe.name, cache)
        with (
            _driven(run_dir, display),
            followed(run_dir, display) as leave,
            heard(run_dir),
            _recorded(run_dir, loaded, leave, is_new=earlier is None),
        ):
            note_run(prepared.folder, run_dir)
            runs.append_event(run_dir, "prepared", {"folder": str(prepared.folder)})
            record.begin(run_dir, loaded, gpu=gpu)
            job = _job(recipe, run_dir, prepared.folder, base_folder)
            if forked is not None:
                runs.note_parent(run_dir, runs.name_of(forked))
            if forked is not None or earlier is not None:
                job = _continued(job, prepared, display)
            from launcher.driving.attempts import run_attempts

            result = run_attempts(job, connection, display)
            record.end(run_dir)
            if result["stopped"]:
                runs.append_event(run_dir, "stopped", {"why": result["why"]})
            else:
                runs.append_event(run_dir, "finished")
    return Outcome(
        run_dir=run_dir,
        name=runs.name_of(run_dir),
        task=recipe.task,
        steps=result["steps"],
        stopped=result["why"] if result["stopped"] else None,
        checkpoint=Path(result["checkpoint"]) if result["checkpoint"] else None,
        before=runs.read_evaluation(run_dir, "before"),
        after=result["after"],
    )


@contextmanager
def _driven(run_dir: Path, display: Display) -> Iterator[None]:
    """Nobody else drives this run meanwhile.

    SLURM that loses sight of a node queues its job again, while the start that it has lost goes on
    there. That one is asked to save and stop, as for a more urgent job.
    """
    if not is_inside():
        with runs.locked(run_dir):
            # A job's script does so before a scheduler may ask for anything.
            forget(run_dir)
            yield
        return

    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        display.line("Waiting for an earlier start of this job, which still runs, to save and stop")
        ask_to_stop(run_dir, PREEMPTED)

    with runs.locked(run_dir, patience_s=_EARLIER_START_S, ask=ask):
        if asked:
            forget(run_dir)
        yield


def _storage(recipe: Recipe, earlier: Path | None) -> str:
    """The folder or address that holds the run; an earlier one may have been moved."""
    kept_at = address_of(earlier) if earlier is not None else None
    return address.parent(kept_at) if kept_at is not None else recipe.storage.path


def _continued(job: Job, prepared: Prepared, display: Display) -> Job:
    """The job from its run's newest whole checkpoint, or from that of the run it was forked from;
    from the beginning when there is none."""
    from launcher.driving.attempts import newest_checkpoint
    from trainer.shards import training_digest

    folder = newest_checkpoint(job.run_dir, display)
    parent = runs.parent_of(job.run_dir)
    if folder is None and parent is not None:
        return _forked(job, runs.find(parent), prepared, display)
    if folder is None:
        display.line(f"{job.run_dir} has no checkpoint yet: from the beginning")
        return job
    check_base(folder, job.base)
    check_data(folder, training_digest(prepared.manifest))
    display.line(f"Going on from {folder}")
    runs.append_event(job.run_dir, "resumed", {"checkpoint": str(folder)})
    return dataclasses.replace(job, resume_from=folder)


def _forked(job: Job, parent: Path, prepared: Prepared, display: Display) -> Job:
    """The job from another run's newest checkpoint, which becomes the new run's own first."""
    from launcher.driving.attempts import newest_checkpoint
    from trainer.shards import training_digest

    folder = newest_checkpoint(parent, display)
    if folder is None:
        raise CheckpointError(f"{parent}: has no checkpoint to start a new run from")
    taken = runs.take_over(parent, job.run_dir, folder)
    reseal(
        taken,
        base=job.base,
        recipe_digest=resolved.digest(job.recipe),
        data_digest=training_digest(prepared.manifest),
    )
    open_mirror(job.run_dir).secure(taken)
    display.line(f"A new run, {runs.name_of(job.run_dir)}, from {folder}")
    runs.append_event(job.run_dir, "forked", {"run": str(parent), "checkpoint": str(folder)})
    return dataclasses.replace(job, resume_from=taken)


def evaluate(run_dir: Path, overrides: Sequence[str], display: Display) -> Mapping[str, Any]:
    """Measure the newest checkpoint of a run on its held-out rows."""
    from cluster.ray_cluster import connected

    recipe = load(run_dir / "recipe.yaml", overrides).recipe
    runs.check_same(run_dir, recipe)
    folder = open_mirror(run_dir).newest()
    if folder is None:
        raise CheckpointError(f"{run_dir}: has no checkpoint to evaluate")
    base_folder = _base_folder(recipe, display)
    with connected_with_display(connected, recipe, display) as connection:
        prepared = _prepare(recipe, base_folder, display)
        if prepared.manifest["splits"]["held_out"]["rows"] == 0:
            raise DataError(f"{run_dir}: its recipe holds no rows out, there is nothing to measure")
        from launcher.driving.attempts import run_attempts

        job = dataclasses.replace(
            _job(recipe, run_dir, prepared.folder, base_folder),
            action="evaluate",
            resume_from=folder,
        )
        with followed(run_dir, display):
            found: Mapping[str, Any] = run_attempts(job, connection, display)["after"]
    return found


@contextmanager
def connected_with_display(
    connected: Any, recipe: Recipe, display: Display
) -> Iterator[Connection]:
    """Connected to the recipe's cluster, with the time it takes shown."""
    display.phase("starting Ray", 0, 0)
    with connected(recipe.cluster, tell=display.line) as connection:
        display.phase("starting Ray", 1, 1)
        yield connection


def _prepare(
    recipe: Recipe, base_folder: Path, display: Display, *, verify: bool = False
) -> Prepared:
    prepared = prepare_data(
        recipe,
        base_folder=base_folder,
        cache=Path(recipe.storage.cache),
        progress=display.phase,
        verify=verify,
        tell=display.line,
    )
    _tell(prepared, display)
    return prepared


def _tell(prepared: Prepared, display: Display) -> None:
    for line in prepared_summary.lines(prepared):
        display.line(line)


def _check_said(recipe: Recipe) -> None:
    """Raises `RecipeError` for a shape that no run can train on yet, before anything is done."""
    for path, shape in recipe.data.shapes():
        if shape in ONLY_PREPARED:
            raise RecipeError(
                f"{path} = {shape}: {ONLY_PREPARED[shape]} can be prepared (shoal prepare), but no "
                "run can train on them yet"
            )


def check_trained(prepared: Prepared) -> None:
    """Raises `DataError` for rows of such a shape that the recipe does not name."""
    for shape in prepared.manifest["only_prepared"]:
        raise DataError(
            f"data: rows hold {ONLY_PREPARED[shape]} (format {shape}). They were prepared in "
            f"{prepared.folder}, but no run can train on them yet. Take them out, or name the "
            "shape that the rows shall have with data.format"
        )


def _job(recipe: Recipe, run_dir: Path, prepared: Path, base_folder: Path) -> Job:
    from trainer.job import Job

    return Job(
        recipe=recipe,
        run_dir=run_dir,
        address=address_of(run_dir),
        prepared=prepared,
        base_folder=base_folder,
        base=base_ref(recipe.base.source, recipe.base.revision, base_folder),
    )


@contextmanager
def _recorded(
    run_dir: Path, loaded: LoadedRecipe, leave: Callable[[], None], *, is_new: bool
) -> Iterator[None]:
    """A run's recipe and what becomes of it, on disk. A new run that fails on purpose before its
    first step leaves nothing: `leave` lets nothing of it be on its way elsewhere."""
    write_whole(run_dir / "recipe.yaml", resolved.to_yaml(loaded))
    runs.append_event(run_dir, "started")
    try:
        yield
    except NodesLostError as error:
        _note_end(run_dir, "stopped", error)
        raise
    except ShoalError as error:
        if is_new and not (run_dir / "metrics.jsonl").exists():
            leave()
            runs.discard(run_dir)
        else:
            _note_end(run_dir, "failed", error)
        raise
    except BaseException as error:
        _note_end(
            run_dir, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error
        )
        raise


def _note_end(run_dir: Path, what: str, error: BaseException) -> None:
    with suppress(StorageError):  # the error itself is what matters
        runs.append_event(run_dir, what, {"error": str(error)} if str(error) else {})
