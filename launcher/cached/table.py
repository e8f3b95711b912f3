"""The cache for a person, and for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from launcher.cached.entries import OtherEntry, PartialEntry, PreparedEntry
from launcher.plan.report import bytes_text
from recipes.listing import listed

KEY_SHOWN = 12
PREPARED_COLUMNS = ("key", "recipe", "samples", "tokens", "size", "made", "used", "runs")
PARTIAL_COLUMNS = ("key", "size", "changed", "state")
OTHER_COLUMNS = ("what", "name", "size")


def prepared_rows(entries: Sequence[PreparedEntry], now: float) -> list[list[str]]:
    return [
        [
            entry.key[:KEY_SHOWN],
            entry.recipe,
            f"{entry.samples:,}",
            f"{entry.tokens:,}",
            bytes_text(entry.bytes),
            ago_text(now - entry.made),
            ago_text(now - entry.used),
            listed([_user(user.name, user.state) for user in entry.users], 3) or "none",
        ]
        for entry in entries
    ]


def _user(name: str, state: str) -> str:
    short = name.rstrip("/").rpartition("/")[2]
    return short if state == "ended" else f"{short} ({state})"


def partial_rows(entries: Sequence[PartialEntry], now: float) -> list[list[str]]:
    return [
        [
            entry.key[:KEY_SHOWN],
            bytes_text(entry.bytes),
            ago_text(now - entry.changed),
            "being made" if entry.is_made else "interrupted",
        ]
        for entry in entries
    ]


def other_rows(entries: Sequence[OtherEntry]) -> list[list[str]]:
    return [[entry.what, entry.name, bytes_text(entry.bytes)] for entry in entries]


def sum_line(entries: Sequence[PreparedEntry | PartialEntry | OtherEntry]) -> str:
    return bytes_text(sum(entry.bytes for entry in entries))


def as_json(
    cache: str,
    prepared: Sequence[PreparedEntry],
    partial: Sequence[PartialEntry],
    others: Sequence[OtherEntry],
) -> dict[str, Any]:
    """All of it; times in seconds since 1970."""
    return {
        "cache": cache,
        "prepared": [{**asdict(entry), "folder": str(entry.folder)} for entry in prepared],
        "partial": [{**asdict(entry), "folder": str(entry.folder)} for entry in partial],
        "others": [asdict(entry) for entry in others],
    }


def described(entry: PreparedEntry | PartialEntry) -> str:
    """An entry in a line, before it is removed."""
    what = f"prepared by {entry.recipe}" if isinstance(entry, PreparedEntry) else "not finished"
    return f"{entry.key} ({what}, {bytes_text(entry.bytes)})"


_STEPS = ((86400.0 * 2, 86400.0, "days"), (3600.0 * 2, 3600.0, "hours"), (120.0, 60.0, "minutes"))


def ago_text(seconds: float) -> str:
    """`just now`, `5 minutes ago`, `3 days ago`."""
    for least, unit, name in _STEPS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name} ago"
    return "just now"


def lines_of_kept(kept: Sequence[tuple[PreparedEntry | PartialEntry, str]]) -> Iterator[str]:
    for entry, why in kept:
        yield f"{described(entry)} {why}"
