"""Where files lie: folders of this machine, and any filesystem that opens by an address.

`s3://` is opened as a run's storage is, by the AWS_* variables; other addresses by pyarrow's own
filesystems (`gs://`, `abfs://`, `hdfs://`), and what it does not know by fsspec's.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, PyFileSystem

from adapters import object_store
from recipes import environment
from recipes.address import is_address
from recipes.errors import DataError

# How far a stamp's time can be from ours: file servers tell it in steps of up to two seconds,
# stores in whole ones, and by clocks of their own.
_SETTLES_S = 2.0
_REMOTE_SETTLES_S = 10.0

# One request to a store for each block, so that its answer time weighs little.
_REMOTE_BLOCK_BYTES = 8 * 2**20
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file or folder. `stamp` changes when the file is written: its size and time, or what the
    filesystem tells instead of a time."""

    address: str
    is_folder: bool = False
    bytes: int = 0
    stamp: str = ""
    settled: float = 0.0
    """From this time on (seconds since 1970) whoever writes to the file changes the stamp too: it
    has the resolution of the filesystem's clock, which may differ from ours."""


class Files(Protocol):
    """The files of one filesystem, by their addresses. Raises `OSError` or Arrow's own errors."""

    def look(self, address: str) -> Entry | None:
        """What lies at an address, if anything."""

    def below(self, folder: str) -> list[Entry]:
        """All files below a folder, by their addresses, without hidden ones."""

    def children(self, folder: str) -> list[str]:
        """The names in a folder; none of one that is not there."""

    def open(self, address: str) -> BinaryIO:
        """A stream of a file's bytes, which can seek."""

    def open_arrow(self, address: str, *, mapped: bool) -> pa.NativeFile:
        """The same for Arrow's readers; `mapped` into memory where that can be."""


class LocalFiles:
    """Those that this machine's kernel sees, NFS among them."""

    def look(self, address: str) -> Entry | None:
        try:
            found = os.stat(address)
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamp = f"{found.st_size}-{found.st_mtime_ns}"
        is_folder = os.path.isdir(address)
        return Entry(
            address=address,
            is_folder=is_folder,
            bytes=found.st_size,
            stamp=stamp,
            settled=found.st_mtime + _SETTLES_S,
        )

    def below(self, folder: str) -> list[Entry]:
        seen = {os.path.realpath(folder)}
        found = []
        for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
            folders[:] = [
                name
                for name in sorted(folders)
                if not name.startswith(".") and self._is_new(os.path.join(place, name), seen)
            ]
            files = [os.path.join(place, name) for name in names if not name.startswith(".")]
            found += [self.look(file) for file in files if os.path.isfile(file)]
        return sorted(filter(None, found), key=lambda entry: entry.address)

    def _is_new(self, folder: str, seen: set[str]) -> bool:
        # A link may lead to where it lies itself, or to a folder that is looked at anyhow.
        real = os.path.realpath(folder)
        is_new = real not in seen
        seen.add(real)
        return is_new

    def children(self, folder: str) -> list[str]:
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def open(self, address: str) -> BinaryIO:
        return open(address, "rb")

    def open_arrow(self, address: str, *, mapped: bool) -> pa.NativeFile:
        return pa.memory_map(address) if mapped else pa.OSFile(address)


class RemoteFiles:
    """Those of a filesystem of pyarrow's; `root` is its address, `inner` the path of the root."""

    def __init__(self, root: str, files: Any, inner: str) -> None:
        self.root, self.files, self.inner = root, files, inner.rstrip("/")

    def path(self, address: str) -> str:
        """What the filesystem calls an address."""
        return self.inner + address.removeprefix(self.root).rstrip("/")

    def look(self, address: str) -> Entry | None:
        [info] = self.files.get_file_info([self.path(address)])
        return None if info.type == FileType.NotFound else self._entry(info)

    def below(self, folder: str) -> list[Entry]:
        return sorted(
            (
                entry
                for info in self._listed(folder, recursive=True)
                if not (entry := self._entry(info)).is_folder
                and "/." not in entry.address.removeprefix(folder.rstrip("/"))
            ),
            key=lambda entry: entry.address,
        )

    def children(self, folder: str) -> list[str]:
        return sorted(info.base_name for info in self._listed(folder, recursive=False))

    def open(self, address: str) -> BinaryIO:
        raw = self.open_arrow(address, mapped=False)
        return cast(BinaryIO, io.BufferedReader(raw, _REMOTE_BLOCK_BYTES))

    def open_arrow(self, address: str, *, mapped: bool) -> pa.NativeFile:
        return self.files.open_input_file(self.path(address))

    def _listed(self, folder: str, *, recursive: bool) -> list[Any]:
        selector = FileSelector(self.path(folder), recursive=recursive, allow_not_found=True)
        return list(self.files.get_file_info(selector))

    def _entry(self, info: Any) -> Entry:
        return Entry(
            address=self.root + "/" + info.path.removeprefix(self.inner).lstrip("/"),
            is_folder=info.type == FileType.Directory,
            bytes=info.size or 0,
            stamp=f"{info.size}-{info.mtime_ns or self._told(info.path)}",
            settled=info.mtime_ns / 1e9 + _REMOTE_SETTLES_S if info.mtime_ns else 0.0,
        )

    def _told(self, path: str) -> str:
        """What stands for a time where pyarrow is told none."""
        handler = getattr(self.files, "handler", None)
        if handler is None:
            return ""
        told = handler.fs.info(path)
        names = ("etag", "ETag", "mtime", "LastModified", "last_modified", "updated", "created")
        return "-".join(str(told[name]) for name in names if told.get(name) is not None)


def files_at(address: str) -> Files:
    """The filesystem of an address. Raises `DataError` for one that cannot be opened."""
    if not is_address(address):
        return LocalFiles()
    scheme, _, rest = address.partition("://")
    root = f"{scheme}://{rest.partition('/')[0]}"
    return _remote(root, tuple(sorted(environment.for_storage().items())))


@lru_cache(maxsize=16)
def _remote(root: str, variables: tuple[tuple[str, str], ...]) -> RemoteFiles:
    """`variables` are what a filesystem takes from the environment: with others it is another."""
    scheme, _, rest = root.partition("://")
    with told(root):
        if scheme in ("s3", "s3a", "s3n"):
            files = object_store.connect(object_store.TIMEOUT_S, attempts=_ATTEMPTS)
            return RemoteFiles(root, files, rest)
        return RemoteFiles(root, *(_of_pyarrow(root) or _of_fsspec(root)))


# Google's library asks again for a quarter of an hour where nothing is said.
_OPTIONS = dict.fromkeys(("gs", "gcs"), "?retry_limit_seconds=60")


def _of_pyarrow(root: str) -> tuple[Any, str] | None:
    try:
        files, inner = FileSystem.from_uri(root + _OPTIONS.get(root.partition("://")[0], ""))
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem" in str(error):
            return None
        raise
    return files, inner


def _of_fsspec(root: str) -> tuple[Any, str]:
    from fsspec import available_protocols
    from fsspec.core import url_to_fs

    scheme = root.partition("://")[0]
    if scheme not in available_protocols():
        raise DataError(
            f"{root}: no filesystem is known by {scheme}://. Take s3://, gs://, abfs://, hdfs://, "
            "or one that a package registers with fsspec"
        )
    try:
        files, inner = url_to_fs(root)
    except ImportError as error:
        raise DataError(f"{root}: cannot be opened here: {error}") from error
    return PyFileSystem(FSSpecHandler(files)), inner


@contextmanager
def told(where: str, key: str = "the recipe") -> Iterator[None]:
    """What goes wrong at a place as a `DataError` of one line, with the fix."""
    try:
        yield
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{where}: {_reason(error, key)}") from error


_REASONS: Mapping[type[Exception], str] = {
    FileNotFoundError: "there is no such file",
    PermissionError: "may not be read. Check the rights of the file and of the folders above it",
    EOFError: "is cut off. Copy it again",
}


def _reason(error: Exception, key: str) -> str:
    text = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), None)
    return text or object_store.reason(str(error), key)


def _raise(error: OSError) -> None:
    raise error
