"""Source files, and the units that one preparing task reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from recipes import data
from recipes.errors import DataError

SplitName = Literal["train", "held_out"]

_LINES = (".jsonl", ".txt")
_WHOLE = (".json", ".csv")
_KNOWN = (*_LINES, *_WHOLE, ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file of a split."""

    path: Path
    split: SplitName
    spec: data.Source
    """The entry of the recipe that names it."""
    entry: int = 0

    @property
    def address(self) -> str:
        return str(self.path)

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def stamp(self) -> str:
        return str(self.path.stat().st_mtime_ns)


def digest_of(source: Source) -> str:
    from recipes.files import sha256

    return sha256(source.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of a source that does not depend on the cluster. `begin` and `end` are bytes of a
    file of lines (a line belongs to the unit it begins in), row groups of a parquet file, and 0 and
    0 for a file that is read whole."""

    number: int
    source: Source
    begin: int
    end: int


def find_sources(rows: data.Data, cache: Path) -> list[Source]:
    """The files of a recipe in its order, those of a folder by name.

    Raises `DataError` for a path that is not there, holds no file of a known kind, or is empty.
    """
    found: list[Source] = []
    for key, split, names in (
        ("train", "train", rows.train),
        ("held_out", "held_out", rows.held_out),
    ):
        for entry, spec in enumerate(names):
            files = files_of(spec.path, cache, f"data.{key}")
            found += [Source(path=file, split=split, spec=spec, entry=entry) for file in files]  # type: ignore[arg-type]
    return found


def files_of(name: str, cache: Path, key: str) -> list[Path]:
    """The files that a name stands for, which a message calls `key`. Raises `DataError`."""
    return _files(_local(name, cache, key), key)


def _local(name: str, cache: Path, key: str) -> Path:
    if not name.startswith("sample:"):
        return Path(name)
    sample, _, inner = name.removeprefix("sample:").partition("/")
    folder = cache / "samples" / sample
    if not folder.is_dir():
        raise DataError(
            f"{key} = {name}: the sample is not there yet. Get it with: shoal samples {sample}"
        )
    return folder / inner


def _files(path: Path, key: str) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _KNOWN)
        if not files:
            raise DataError(f"{key} = {path}: the folder holds no file of {', '.join(_KNOWN)}")
        return files
    if not path.is_file():
        raise DataError(f"{key} = {path}: there is no such file.{_near(path)}")
    if path.suffix not in _KNOWN:
        raise DataError(
            f"{key} = {path}: unknown kind of file '{path.suffix}'; known: {', '.join(_KNOWN)}"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{key} = {path}: the file is empty")
    return [path]


def _near(path: Path) -> str:
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.with_name(near[0])}?" if near else ""


def units(sources: Iterable[Source], unit_bytes: int) -> list[Unit]:
    """The units of all sources, numbered in order."""
    parts = [(source, *part) for source in sources for part in _parts(source, unit_bytes)]
    return [
        Unit(number=number, source=source, begin=begin, end=end)
        for number, (source, begin, end) in enumerate(parts)
    ]


def _parts(source: Source, unit_bytes: int) -> Iterator[tuple[int, int]]:
    if source.path.suffix in _LINES:
        size = source.path.stat().st_size
        for begin in range(0, size, unit_bytes):
            yield begin, min(begin + unit_bytes, size)
    elif source.path.suffix == ".parquet":
        yield from _row_groups(source.path, unit_bytes)
    else:
        yield 0, 0


def _row_groups(path: Path, unit_bytes: int) -> Iterator[tuple[int, int]]:
    """Runs of row groups of about `unit_bytes` uncompressed bytes."""
    try:
        metadata = pq.read_metadata(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no parquet file: {error}") from error
    begin, size = 0, 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= unit_bytes:
            yield begin, group + 1
            begin, size = group + 1, 0
    if begin < metadata.num_row_groups:
        yield begin, metadata.num_row_groups
