"""Where a run is kept: in its folder alone, or also below an address of object storage.

A run always works in a folder. A mirror brings what appears there to the store, and back to a
folder that lacks it. What is true of a store at any moment, also when an upload is cut off:

- A checkpoint's manifest is put last and deleted first, so a checkpoint that has one is whole.
- The curve and the ledger are put before the manifest, so they reach as far as the checkpoint.
- Nothing that was fetched is used before its hashes were compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from adapters import checkpoint_folder
from adapters.checkpoint_folder import MANIFEST, parse_manifest
from adapters.object_store import ObjectStore
from recipes.errors import CheckpointError, StorageError
from recipes.files import whole_folder, write_whole

_ADDRESS = ".address"
_CHECKPOINTS = "checkpoints"
_CURVE = "metrics.jsonl"
_LEDGER = "ledger"
_OWNER = ".owner-"
_NO_RECORDS = (f"{_CHECKPOINTS}/", _OWNER)

OnBad = Callable[[str], None]


def _ignore(why: str) -> None:
    pass


class Mirror(Protocol):
    """The other place of a run, if it has one. All methods raise `StorageError`."""

    @property
    def address(self) -> str | None:
        """Where that is."""

    def newest(self, on_bad: OnBad = _ignore) -> Path | None:
        """The newest whole checkpoint, in the run's folder; `on_bad` is told why others are not."""

    def secure(self, folder: Path) -> None:
        """Have a checkpoint of the run's folder in the other place too."""

    def join(self) -> None:
        """Have a folder of this run, and of no earlier one of its name, on this machine."""

    def fetch(self, folder: Path) -> None:
        """Have this checkpoint in the run's folder. Raises `CheckpointError` when it is bad."""

    def fetch_curve(self, step: int) -> None:
        """Have the curve and the ledger up to this step in the run's folder."""

    def fetch_records(self) -> None:
        """Have everything but checkpoints in the run's folder."""

    def push(self, *names: str) -> None:
        """Bring files, or what lies in folders of the run, if they changed since."""

    def push_checkpoint(self, folder: Path) -> None:
        """Bring a checkpoint."""

    def prune(self, saved: Path, *, keep: int, every: int | None, best: int, by: str) -> None:
        """Delete checkpoints by the rule of `checkpoint_folder.unwanted`, never `saved`."""

    def read(self, name: str) -> str | None:
        """A small text that is only there, or None."""

    def write(self, name: str, text: str) -> None:
        """Put a small text."""

    def discard(self) -> None:
        """Delete a run that never got to a step."""


def open_mirror(run_dir: Path, address: str | None = None) -> Mirror:
    """The mirror of a run; its folder knows the address, if it was here before."""
    address = address or address_of(run_dir)
    return ObjectMirror(run_dir, address) if address is not None else NoMirror(run_dir)


def address_of(run_dir: Path) -> str | None:
    """Where else a run is kept, told by its folder."""
    try:
        return (run_dir / _ADDRESS).read_text(encoding="utf-8").strip()
    except OSError:
        return None


class NoMirror:
    """Of a run that is kept in its folder alone."""

    address: str | None = None

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def newest(self, on_bad: OnBad = _ignore) -> Path | None:
        return checkpoint_folder.newest(self._run_dir / _CHECKPOINTS, on_bad)

    def secure(self, folder: Path) -> None:
        pass

    def join(self) -> None:
        pass

    def fetch(self, folder: Path) -> None:
        pass

    def fetch_curve(self, step: int) -> None:
        pass

    def fetch_records(self) -> None:
        pass

    def push(self, *names: str) -> None:
        pass

    def push_checkpoint(self, folder: Path) -> None:
        pass

    def prune(self, saved: Path, *, keep: int, every: int | None, best: int, by: str) -> None:
        pass

    def read(self, name: str) -> str | None:
        return None

    def write(self, name: str, text: str) -> None:
        pass

    def discard(self) -> None:
        pass


class ObjectMirror:
    """Of a run that is kept below an address of object storage."""

    def __init__(self, run_dir: Path, address: str) -> None:
        self.address: str = address
        self._run_dir = run_dir
        self._store = ObjectStore(address)
        self._pushed: dict[str, tuple[int, int]] = {}

    def take(self, owner: str) -> bool:
        """Make this a new run, with an empty folder; False when the address is not free.

        Of several who try at the same time one gets it, or none: each puts an object of its own
        before it looks, so at least one of two sees the other.
        """
        mine = _OWNER + owner
        self._store.put(mine, b"")
        if self._store.names() != [mine]:
            self._store.delete(mine)
            return False
        self._begin_folder(owner)
        return True

    def _begin_folder(self, owner: str) -> None:
        try:
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir.mkdir(parents=True)
            (self._run_dir / f"{_OWNER}{owner}").touch()
        except OSError as error:
            raise StorageError(f"{self._run_dir}: cannot be made: {error}") from error
        write_whole(self._run_dir / _ADDRESS, self.address)

    def join(self) -> None:
        with self._alone():
            self._join(self._store.names())

    def _join(self, names: list[str]) -> None:
        owner = next((name[len(_OWNER) :] for name in names if name.startswith(_OWNER)), "none")
        if not (self._run_dir / f"{_OWNER}{owner}").exists():
            self._begin_folder(owner)

    def fetch_records(self) -> None:
        """The side with the newer checkpoint is right; what it says reaches at least that far."""
        names = self._store.names()
        with self._alone():
            self._join(names)
            here = checkpoint_folder.newest(self._run_dir / _CHECKPOINTS)
            if here is None or here.name < max(_sealed(names), default=""):
                self._replace([name for name in names if not name.startswith(_NO_RECORDS)])

    def fetch_curve(self, step: int) -> None:
        with self._alone():
            if _lines(self._run_dir / _CURVE) < step:
                self._replace([_CURVE, *self._store.names(_LEDGER)])

    def _replace(self, names: list[str]) -> None:
        shutil.rmtree(self._run_dir / _LEDGER, ignore_errors=True)
        for name in names:
            self._store.get_file(name, self._run_dir / name)

    def secure(self, folder: Path) -> None:
        if folder.name not in _sealed(self._store.names(_CHECKPOINTS)):
            self.push(_CURVE, _LEDGER)
            self.push_checkpoint(folder)

    def newest(self, on_bad: OnBad = _ignore) -> Path | None:
        checkpoints = self._run_dir / _CHECKPOINTS
        try:
            there = _sealed(self._store.names(_CHECKPOINTS))
        except StorageError:
            here = checkpoint_folder.newest(checkpoints, on_bad)
            if here is None:
                raise
            return here
        here_names = {folder.name for folder in checkpoints.glob("step_*")}
        for name in sorted(here_names | there, reverse=True):
            folder = checkpoints / name
            try:
                if name in there:
                    self.fetch(folder)
                else:
                    checkpoint_folder.verify(folder)
            except CheckpointError as error:
                on_bad(str(error))
                continue
            return folder
        return None

    def fetch(self, folder: Path) -> None:
        """A copy that is here already and whole is taken as it is."""
        with self._alone():
            if _is_whole(folder):
                return
            shutil.rmtree(folder, ignore_errors=True)
            with whole_folder(folder) as aside:
                below = f"{_CHECKPOINTS}/{folder.name}/"
                for name in self._store.names(below.rstrip("/")):
                    self._store.get_file(name, aside / name.removeprefix(below))
                try:
                    checkpoint_folder.verify(aside)
                except CheckpointError as error:
                    what = str(error).replace(str(aside), f"{self.address}/{below.rstrip('/')}")
                    raise CheckpointError(what) from error

    def push(self, *names: str) -> None:
        for name in names:
            path = self._run_dir / name
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                # Dots begin the names of what is being written aside.
                if file.is_file() and not file.name.startswith("."):
                    self._push_file(file)

    def _push_file(self, file: Path) -> None:
        name = file.relative_to(self._run_dir).as_posix()
        try:
            status = file.stat()
            now = (status.st_size, status.st_mtime_ns)
            if self._pushed.get(name) == now:
                return
            content = file.read_bytes()
        except OSError as error:
            raise StorageError(f"{file}: cannot be read: {error}") from error
        self._store.put(name, content)
        self._pushed[name] = now

    def push_checkpoint(self, folder: Path) -> None:
        below = f"{_CHECKPOINTS}/{folder.name}"
        seal = f"{below}/{MANIFEST}"
        # A run that went on from an older checkpoint comes here again.
        self._store.delete(seal)
        files = checkpoint_folder.read_manifest(folder)["files"]
        stale = set(self._store.names(below)) - {f"{below}/{name}" for name in files}
        for name in sorted(files):
            self._store.put_file(f"{below}/{name}", folder / name)
        for name in sorted(stale):
            self._store.delete(name)
        self._store.put_file(seal, folder / MANIFEST)

    def prune(self, saved: Path, *, keep: int, every: int | None, best: int, by: str) -> None:
        names = self._store.names(_CHECKPOINTS)
        sealed = _sealed(names)
        there = sorted({name.split("/")[1] for name in names})
        folders = [Path(_CHECKPOINTS, name) for name in there if name.startswith("step_")]
        # What is later than the checkpoint just saved was passed over, or it would be later still.
        past = [folder for folder in folders if folder.name <= saved.name]
        whole = [folder for folder in past if folder.name in sealed]
        scores = {folder: self._score(folder, by) for folder in whole} if best else {}
        old = checkpoint_folder.unwanted(whole, scores, keep=keep, every=every, best=best, by=by)
        torn_or_later = [folder for folder in folders if folder not in whole]
        for folder in [*old, *torn_or_later]:
            if folder.name != saved.name:
                self._store.delete((folder / MANIFEST).as_posix())
                self._store.delete_below(folder.as_posix())

    def _score(self, folder: Path, by: str) -> float | None:
        content = self._store.get((folder / MANIFEST).as_posix())
        try:
            score: float | None = parse_manifest(content or b"")["scores"].get(by)
        except ValueError:
            return None
        return score

    def read(self, name: str) -> str | None:
        content = self._store.get(name)
        return content.decode() if content is not None else None

    def write(self, name: str, text: str) -> None:
        self._store.put(name, text.encode())

    def discard(self) -> None:
        names = self._store.names()
        if not _sealed(names):
            self._store.delete_below("")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Ranks of one node, which share the folder, fetch one after the other."""
        self._run_dir.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._run_dir.with_name(f".{self._run_dir.name}.fetching")):
            yield


def _sealed(names: list[str]) -> set[str]:
    """The checkpoints that have a manifest, given names of objects."""
    parts = [name.split("/") for name in names]
    return {p[1] for p in parts if len(p) == 3 and p[0] == _CHECKPOINTS and p[2] == MANIFEST}


def _is_whole(folder: Path) -> bool:
    try:
        checkpoint_folder.verify(folder)
    except CheckpointError:
        return False
    return True


def _lines(file: Path) -> int:
    try:
        return file.read_bytes().count(b"\n")
    except OSError:
        return 0
