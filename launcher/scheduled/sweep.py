"""Handing a sweep to a scheduler: every run is made here, and all are handed in together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cluster.job import Job, JobKind, Sweep
from cluster.schedulers import scheduler
from launcher.records import run_names, runs
from launcher.scheduled.submit import check, free_folder, kind_of, make_ready, note, submission
from recipes.errors import RecipeError, ShoalError, StorageError
from recipes.sweep import Member, report

# A folder with a dot is no run: listing runs passes it by.
_FOLDERS = ".sweeps"


def dry_run(members: Sequence[Member], at_most: int | None) -> str:
    """The script that would be submitted for a sweep."""
    run_dirs = [free_folder(member.loaded.recipe) for member in members]
    folder = run_dirs[0].parent / _FOLDERS / members[0].sweep
    return scheduler(_kind_of(members)).show_sweep(_sweep(members, run_dirs, folder, at_most))


def submit(members: Sequence[Member], at_most: int | None) -> list[tuple[Path, Job]]:
    """Submit a sweep: the folder and the job of each run.

    Raises `RecipeError` with the problems of all runs. Nothing stays of a sweep that is not taken.
    """
    kind = _kind_of(members)
    _check_all(members)
    with ExitStack() as undo:
        run_dirs = [_made(member, undo) for member in members]
        folder = _own_folder(run_dirs[0].parent / _FOLDERS, members[0].sweep)
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        handed_in = scheduler(kind).submit_sweep(_sweep(members, run_dirs, folder, at_most))
        undo.pop_all()
    for run_dir, job in zip(run_dirs, handed_in, strict=True):
        note(run_dir, job)
    return list(zip(run_dirs, handed_in, strict=True))


def _kind_of(members: Sequence[Member]) -> JobKind:
    """The scheduler of all. Raises `RecipeError` when there is none, or more than one."""
    recipes = [member.loaded.recipe for member in members]
    kinds = sorted({recipe.cluster.kind for recipe in recipes})
    if len(kinds) > 1:
        raise RecipeError(
            f"--sweep: cluster.kind would be {' and '.join(kinds)}. A sweep is handed to one "
            "scheduler as a whole; submit a sweep for each"
        )
    try:
        return kind_of(recipes[0])
    except RecipeError as error:
        raise RecipeError(
            f"{error}. Without a scheduler give one command for each value: "
            "for r in 4 8; do shoal run RECIPE adapter.r=$r name=r$r; done"
        ) from None


def _check_all(members: Sequence[Member]) -> None:
    wrong = []
    for member in members:
        try:
            check(member.loaded.recipe)
        except ShoalError as error:
            wrong.append((member.changes, str(error)))
    if wrong:
        raise RecipeError(report(wrong, len(members)))


def _made(member: Member, undo: ExitStack) -> Path:
    recipe = member.loaded.recipe
    run_dir = runs.create(recipe.storage.path, recipe.name, Path(recipe.storage.cache))
    undo.callback(runs.discard, run_dir)
    make_ready(member.loaded, run_dir)
    return run_dir


def _own_folder(above: Path, name: str) -> Path:
    for own in run_names.numbered(name):
        try:
            (above / own).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"{above / own}: cannot be made: {error.strerror}") from error
        return above / own
    raise AssertionError("there is always a next name")


def _sweep(
    members: Sequence[Member], run_dirs: Sequence[Path], folder: Path, at_most: int | None
) -> Sweep:
    submissions = tuple(
        submission(member.loaded, run_dir)
        for member, run_dir in zip(members, run_dirs, strict=True)
    )
    return Sweep(submissions=submissions, folder=folder, at_most=at_most)
