"""Run folders: making, finding, and what is noted in them."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adapters.exported import is_export
from adapters.mirror import address_of, open_mirror
from launcher.records import kept_runs, run_names
from recipes import resolved
from recipes.address import is_address
from recipes.errors import CheckpointError, StorageError
from recipes.files import existing, lines_from_end, whole_folder, write_whole
from recipes.listing import listed
from recipes.load import load
from recipes.recipe import Recipe

PARENT = "forked_from"
# Who looks whether somebody drives a run (launcher/records/jobs.py) holds its lock for a moment.
_LOOK_S = 0.5


def check_writable(storage: str | Path) -> None:
    """Raises `StorageError` when no run could be kept in this folder, or at this address.

    Tried by writing a file into it, or into the nearest folder above that exists.
    """
    if is_address(str(storage)):
        return kept_runs.check_writable(str(storage))
    storage = Path(storage)
    try:
        with tempfile.NamedTemporaryFile(dir=existing(storage)) as file:
            file.write(b"shoal")
            file.flush()
    except OSError as error:
        raise StorageError(
            f"storage.path = {storage}: cannot be written: {error.strerror or error}. "
            "Name another folder with storage.path=FOLDER"
        ) from error


def create(storage: str | Path, name: str, cache: Path) -> Path:
    """A new run's folder: `name`, or the first of `name-2`, `name-3`, … that is free. That of a run
    that is kept at an address lies in the cache."""
    if is_address(str(storage)):
        return kept_runs.create(str(storage), name, cache)
    for own in run_names.numbered(name):
        folder = Path(storage) / own
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made: {error.strerror or error}") from error
        return folder
    raise AssertionError("there is always a next name")


def latest(storage: str | Path, name: str, cache: Path) -> Path | None:
    """The run of this name with the highest number, or None."""
    if is_address(str(storage)):
        return kept_runs.latest(str(storage), name, cache)
    return _latest(Path(storage), name)


def _latest(storage: Path, name: str) -> Path | None:
    newest = run_names.newest(name, names(storage))
    return storage / newest if newest is not None else None


def names(storage: Path) -> list[str]:
    """All runs of a folder, sorted."""
    return sorted(file.parent.name for file in storage.glob("*/recipe.yaml") if is_run(file.parent))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: what was exported holds a recipe too."""
    return (folder / "recipe.yaml").is_file() and not is_export(folder)


def usual_storage() -> Path:
    """Where runs lie when a recipe does not say: the folder `runs` of the working directory."""
    return Path.cwd() / "runs"


def find(reference: str, overrides: Sequence[str] = ()) -> Path:
    """A run by its address, its folder, or its name in the usual storage (the newest of that name).
    `overrides` are those with which its recipe will be loaded.

    Raises `CheckpointError` when there is none, with near names.
    """
    if is_address(reference):
        return kept_runs.find(reference, overrides)
    folder = Path(reference).expanduser()
    if is_run(folder):
        open_mirror(folder).fetch_records()
        return folder.resolve()
    storage = usual_storage()
    newest = _latest(storage, reference)
    if newest is not None:
        return newest.resolve()
    if is_export(folder):
        raise CheckpointError(f"{reference}: was exported from a run, and is none. Name the run")
    known = names(storage)
    near = run_names.near(reference, known)
    hint = f"Did you mean {near}?" if near else f"Runs in {storage}: {listed(known) or 'none'}"
    raise CheckpointError(f"{reference}: there is no such run. {hint}")


def name_of(run_dir: Path) -> str:
    """By what a person calls a run: its address, or its folder."""
    return address_of(run_dir) or str(run_dir)


def called(run_dir: Path) -> str:
    """What a person types for a run in this working directory: its name if `find` takes it for this
    run, else its address or folder."""
    newest = _latest(usual_storage(), run_dir.name)
    if newest is not None and newest.resolve() == run_dir.resolve():
        return shlex.quote(run_dir.name)
    return shlex.quote(name_of(run_dir))


def check_same(run_dir: Path, recipe: Recipe) -> None:
    """Raises `CheckpointError` with the differences when a run was made with a recipe that learns
    something else."""
    saved = load(run_dir / "recipe.yaml").recipe
    if resolved.digest(saved) == resolved.digest(recipe):
        return
    changed = ", ".join(
        f"{path} = {new!r} (was {old!r})"
        for path, (old, new) in resolved.differences(saved, recipe).items()
        if not path.startswith(resolved.FREE)
    )
    name = name_of(run_dir)
    raise CheckpointError(
        f"{name}: cannot be resumed with another recipe: {changed}. Take the changes back, or "
        f"start a new run from its checkpoint: shoal resume {name} --fork with the changes"
    )


@contextmanager
def locked(
    run_dir: Path, *, patience_s: float = 0.0, ask: Callable[[], None] | None = None
) -> Iterator[None]:
    """Nobody else drives this run meanwhile. The lock ends with the process, however it ends.

    Raises `StorageError` when somebody still does after `patience_s`; `ask`, if given, is to move
    them.
    """
    lock = FileLock(run_dir / ".lock")
    try:
        with suppress(Timeout):
            lock.acquire(timeout=_LOOK_S)
        if not lock.is_locked:
            if ask is not None:
                ask()
            lock.acquire(timeout=patience_s)
    except Timeout:
        raise StorageError(
            f"{run_dir}: another shoal is running it. Wait for it, or stop it first"
        ) from None
    try:
        yield
    finally:
        lock.release()


def discard(run_dir: Path) -> None:
    """Leave nothing of a run that came to nothing, here and at its address."""
    mirror = open_mirror(run_dir)
    shutil.rmtree(run_dir, ignore_errors=True)
    with suppress(StorageError):  # why it came to nothing is what matters
        mirror.discard()


def note_parent(run_dir: Path, parent: str) -> None:
    """That a run begins from another one's newest checkpoint."""
    write_whole(run_dir / PARENT, parent)


def parent_of(run_dir: Path) -> str | None:
    """Address or folder of the run from whose checkpoint this one begins, if it does."""
    file = run_dir / PARENT
    return file.read_text(encoding="utf-8") if file.exists() else None


def take_over(parent: Path, run_dir: Path, checkpoint: Path) -> Path:
    """Copy a checkpoint of another run, with the curve and the ledger that lead to it: the copy."""
    own = run_dir / "checkpoints" / checkpoint.name
    try:
        with whole_folder(own) as aside:
            shutil.copytree(checkpoint, aside, dirs_exist_ok=True)
        shutil.copytree(parent / "ledger", run_dir / "ledger")
        shutil.copyfile(parent / "metrics.jsonl", run_dir / "metrics.jsonl")
    except OSError as error:
        raise StorageError(f"{run_dir}: {checkpoint} cannot be copied: {error}") from error
    return own


def append_event(run_dir: Path, kind: str, details: Mapping[str, Any] | None = None) -> None:
    """Note in events.jsonl that something happened now."""
    append(run_dir, event(kind, details or {}))


def event(kind: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """A line of events.jsonl, with the time (UTC)."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"time": time, "event": kind, **details}


def append(run_dir: Path, line: Mapping[str, Any]) -> None:
    """Append a line to events.jsonl. Raises `StorageError` when it cannot be written."""
    text = json.dumps(line) + "\n"
    try:
        with (run_dir / "events.jsonl").open("ab", buffering=0) as stream:
            begin = stream.tell()
            if stream.write(text.encode()) < len(text):
                stream.truncate(begin)  # a disk that is full took a part of it
                raise OSError(errno.ENOSPC, "no space for the whole line")
    except OSError as error:
        raise StorageError(f"{run_dir}/events.jsonl: cannot be written: {error}") from error


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of events.jsonl, which may be written to meanwhile."""
    try:
        text = (run_dir / "events.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        with suppress(json.JSONDecodeError):  # a line that is cut off
            found.append(json.loads(line))
    return found


def events_from_end(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The events of a run, the last first; no more is read than is asked for."""
    for line in lines_from_end(run_dir / "events.jsonl"):
        with suppress(json.JSONDecodeError):  # a line that is cut off
            yield json.loads(line)


def read_evaluation(run_dir: Path, when: str) -> dict[str, Any] | None:
    """What was measured `before` or `after`, or None when it was not."""
    file = run_dir / "evaluation" / f"{when}.json"
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
