"""Source files: what the names of a recipe stand for."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from launcher.prepare.sources.file_kinds import KNOWN, Compression, Kind, is_about, kind_of
from launcher.prepare.sources.places import Entry, Files, files_at, told
from recipes import data
from recipes.address import is_address
from recipes.errors import DataError

SplitName = Literal["train", "held_out"]

_CAN_BE_EMPTY = (("json_lines", None), ("text", None), ("csv", None), ("tsv", None))
_SHOWN = 3
_SAMPLE = "sample:"
_LOCAL = "file://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file of a split."""

    address: str
    """An absolute path, or an address such as s3://bucket/rows.jsonl."""
    split: SplitName
    spec: data.Source
    """The entry of the recipe that names it, and `entry` its place among those of the split."""
    entry: int
    kind: Kind
    compression: Compression | None
    bytes: int
    """As it lies there, compressed or not."""
    stamp: str
    """Changes when the file is written; equal stamps are no proof of equal bytes."""
    settled: float = 0.0
    """From this time on it surely does (seconds since 1970)."""
    beside: str = ""
    """Told of the first file of an entry: files of no known kind among its own, from which no row
    comes, as `2 files of other kinds, such as notes.pdf`."""

    @property
    def place(self) -> tuple[str, int, str]:
        """What tells it from all others of a recipe, which can name a file more than once."""
        return self.split, self.entry, self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of a source that does not depend on the cluster. `begin` and `end` are row groups of
    a parquet file, record batches of an Arrow file, and bytes of any other, unpacked: a row belongs
    to the unit it begins in. An `end` of 0 is that of the file."""

    number: int
    source: Source
    begin: int
    end: int
    rows: int | None = None
    """As many of its rows are taken, the first ones, by the limit of its entry; None takes all."""

    def __str__(self) -> str:
        if not self.begin:
            return self.source.address
        things = {"parquet": "row groups", "arrow": "record batches"}
        thing = things.get(self.source.kind, "bytes")
        return f"{self.source.address}, after {self.begin:,} {thing}"


def find_sources(rows: data.Data, cache: Path) -> list[Source]:
    """The files of a recipe in its order, those of a folder or pattern by name.

    Raises `DataError` for what is not there, may not be read, is empty or of no known kind, and for
    a name that is no text.
    """
    found: list[Source] = []
    splits: tuple[tuple[SplitName, list[data.Source]], ...] = (
        ("train", rows.train),
        ("held_out", rows.held_out),
    )
    for split, specs in splits:
        for entry, spec in enumerate(specs):
            found += sources_of(spec, cache, f"data.{split}", split=split, entry=entry)
    return found


def sources_of(
    spec: data.Source, cache: Path, key: str, *, split: SplitName, entry: int = 0
) -> list[Source]:
    """The files that one entry stands for, which a message calls `key`. Raises `DataError`."""
    address = _address(spec.path, cache, key)
    where = f"{key} = {spec.path}"
    with told(where, key):
        found = _found(files_at(address), address, where)
    sources: list[Source] = []
    for file in found.files:
        _check_name(file.address, where)
        kind = kind_of(file.address)
        assert kind is not None, file.address
        sources.append(
            Source(
                address=file.address,
                split=split,
                spec=spec,
                entry=entry,
                kind=kind[0],
                compression=kind[1],
                bytes=file.bytes,
                stamp=file.stamp,
                settled=file.settled,
                beside="" if sources else found.beside,
            )
        )
    return sources


def open_source(source: Source) -> BinaryIO:
    """The bytes of a source as they lie there, from its beginning; seeks. Raises `DataError`."""
    with told(source.address):
        return files_at(source.address).open(source.address)


def digest_of(source: Source) -> str:
    """sha256 of a source's bytes (hex, 64 characters). Raises `DataError`."""
    with told(source.address), open_source(source) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def check_unchanged(source: Source) -> None:
    """Raises `DataError` when a source is not, or no longer, as it was when it was found."""
    entry = files_at(source.address).look(source.address)
    if entry is None:
        raise DataError(f"{source.address}: was deleted while it was read. Put it back")
    if (entry.bytes, entry.stamp) != (source.bytes, source.stamp):
        raise DataError(
            f"{source.address}: was changed while it was read, so its rows may be of two versions. "
            "Try again when nothing writes to it any more"
        )


def _address(name: str, cache: Path, key: str) -> str:
    if name.startswith(_SAMPLE):
        sample, _, inner = name.removeprefix(_SAMPLE).partition("/")
        folder = cache / "samples" / sample
        if not folder.is_dir():
            raise DataError(
                f"{key} = {name}: the sample is not there yet. Get it with: shoal samples {sample}"
            )
        name = str(folder / inner)
    name = name.removeprefix(_LOCAL)
    return name.rstrip("/") if is_address(name) else os.path.abspath(os.path.expanduser(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usable:
    """The files that a name stands for, and what lies beside them (see `Source.beside`)."""

    files: Sequence[Entry]
    beside: str = ""


def _check_name(address: str, where: str) -> None:
    """Names are written down beside the rows, in texts, which are UTF-8."""
    try:
        address.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the name {_shown(address)} is not UTF-8, as of files from another system's "
            "archive. Rename it; convmv does that for whole folders"
        ) from error


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _found(files: Files, address: str, where: str) -> _Usable:
    entry = files.look(address)
    if entry is None:
        if "*" in address or "?" in address:
            return _matching(files, address, where)
        raise DataError(f"{where}: there is no such file.{_near(files, address)}")
    if entry.is_folder:
        return _in_folder(files, address, where)
    if kind_of(address) is None:
        ends = Path(address).suffix
        raise DataError(f"{where}: unknown kind of file '{ends}'; known: {KNOWN}")
    if entry.bytes == 0:
        raise DataError(f"{where}: the file is empty")
    return _Usable(files=[entry])


def _in_folder(files: Files, folder: str, where: str) -> _Usable:
    names = files.children(folder)
    if "dataset_dict.json" in names:
        with _of_datasets("dataset_dict.json", where):
            splits = json.loads(_content(files, f"{folder}/dataset_dict.json"))["splits"]
            named = " or ".join(f"{folder}/{split}" for split in splits)
        raise DataError(f"{where}: holds a dataset of several splits. Name one: {named}")
    if "state.json" in names and "dataset_info.json" in names:
        return _saved_dataset(files, folder, where)
    return _usable(files.below(folder), where, "the folder")


def _saved_dataset(files: Files, folder: str, where: str) -> _Usable:
    """The files of a folder written by `datasets.save_to_disk`, in the order of its rows."""
    with _of_datasets("state.json", where):
        state = json.loads(_content(files, f"{folder}/state.json"))
        names = [part["filename"] for part in state["_data_files"]]
    if state.get("_indices_data_files"):
        raise DataError(f"{where}: rows are chosen by an index. Call flatten_indices(), save again")
    entries = []
    for name in names:
        entry = files.look(f"{folder}/{name}")
        if entry is None:
            raise DataError(f"{where}: {name}, which state.json names, is not there")
        entries.append(entry)
    return _usable(entries, where, "the dataset")


@contextmanager
def _of_datasets(name: str, where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: {name} is not as datasets writes it. Save the dataset again, or name its "
            "files, as in FOLDER/*.arrow"
        ) from error


def _matching(files: Files, pattern: str, where: str) -> _Usable:
    """The files that a pattern stands for: `*` and `?` within a name, `**` across folders."""
    fixed = re.split(r"[*?]", pattern, maxsplit=1)[0].rpartition("/")[0]
    parts = (_MATCHED.get(part) or re.escape(part) for part in _SIGNS.split(pattern))
    matches = re.compile("".join(parts)).fullmatch
    below = files.below(fixed) if files.look(fixed or "/") else []
    found = [entry for entry in below if matches(entry.address)]
    if not found:
        names = [entry.address for entry in below]
        near = difflib.get_close_matches(pattern, names, n=1)
        hint = f" There is {near[0]}" if near else ""
        raise DataError(f"{where}: no file has such a name.{hint}")
    return _usable(found, where, "the pattern")


_SIGNS = re.compile(r"(\*\*/|\*\*|\*|\?)")
_MATCHED = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _usable(entries: Sequence[Entry], where: str, what: str) -> _Usable:
    """The files of known kinds. A text without a byte has no rows, as writers of parts leave some;
    others cannot be whole."""
    may_hold_rows = [entry for entry in entries if not is_about(entry.address)]
    known = [entry for entry in may_hold_rows if kind_of(entry.address) is not None]
    if not known:
        raise DataError(f"{where}: {what} holds no file of {KNOWN}")
    empty = [entry.address for entry in known if not entry.bytes]
    torn = [address for address in empty if kind_of(address) not in _CAN_BE_EMPTY]
    if torn or len(empty) == len(known):
        names = ", ".join((torn or empty)[:_SHOWN])
        raise DataError(f"{where}: empty files in {what}: {names}. Copy them again")
    beside = ""
    if others := [entry.address for entry in may_hold_rows if kind_of(entry.address) is None]:
        files = (
            "1 file of another kind"
            if len(others) == 1
            else f"{len(others):,} files of other kinds"
        )
        beside = f"{files}, such as {_shown(others[0].rpartition('/')[2])}"
    return _Usable(files=[entry for entry in known if entry.bytes], beside=beside)


def _near(files: Files, address: str) -> str:
    """The nearest name where the address goes astray."""
    parent, _, name = address.rpartition("/")
    while parent and not parent.endswith(":/") and not files.look(parent):
        parent, _, name = parent.rpartition("/")
    if parent.endswith(":/"):
        return ""
    near = difflib.get_close_matches(name, files.children(parent or "/"), n=1)
    return f" Did you mean {parent}/{near[0]}?" if near else ""


def _content(files: Files, address: str) -> bytes:
    with files.open(address) as stream:
        return stream.read()
