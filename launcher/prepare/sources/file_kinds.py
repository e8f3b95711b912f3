"""The kinds of files that rows come from, told by the ends of their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["json_lines", "json", "csv", "tsv", "text", "parquet", "arrow"]
Compression = Literal["gzip", "zstd"]

KINDS: Mapping[str, Kind] = {
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
COMPRESSIONS: Mapping[str, Compression] = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
}
KNOWN = f"{', '.join(KINDS)}, and these with {', '.join(COMPRESSIONS)}"

# What stands beside the rows of a folder and tells of them.
_ABOUT = ("readme", "license", "licence", "changelog", "citation")
_ABOUT_FILES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def kind_of(name: str) -> tuple[Kind, Compression | None] | None:
    """The kind and compression of a file by its name; None for a kind that is not known."""
    ends = [end.lower() for end in PurePosixPath(name).suffixes]
    compression = COMPRESSIONS.get(ends[-1]) if ends else None
    if compression is not None:
        ends.pop()
    kind = KINDS.get(ends[-1]) if ends else None
    return None if kind is None else (kind, compression)


def is_about(name: str) -> bool:
    """Whether a file tells of a folder's rows rather than holding some: README.md and its kin."""
    plain = PurePosixPath(name).name.lower()
    return plain.split(".")[0] in _ABOUT or plain in _ABOUT_FILES
