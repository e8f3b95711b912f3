"""The digests of source files: read once, then known by a quick look.

What was read is remembered in the cache by the file's address, with its size and its stamp (the
time of its last change, or the ETag where a store tells no time). While both are the same, so are
the bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.prepare.sources.source import Source, digest_of
from recipes.errors import StorageError
from recipes.files import write_whole

Hasher = Callable[[Sequence[Source]], list[str]]
"""Reads sources whole: the sha256 of each, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """The digests of files that were read before, kept in a folder."""

    folder: Path

    def known(self, source: Source) -> str | None:
        """The digest of a source as it was last read; None when it has changed since, or was never
        read."""
        with suppress(OSError, ValueError, KeyError):
            entry = json.loads(self._file(source).read_text(encoding="utf-8"))
            if (entry["bytes"], entry["stamp"]) == (source.bytes, source.stamp):
                return str(entry["sha256"])
        return None

    def remember(self, source: Source, sha256: str, read_at: float) -> None:
        """Keep the digest of a source that was read from a time on (seconds since 1970), unless it
        had just been written: twice within the resolution of its stamp it looks unchanged."""
        if read_at < source.settled:
            return
        entry = {
            "address": source.address,
            "bytes": source.bytes,
            "stamp": source.stamp,
            "sha256": sha256,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written: {error}") from error
        write_whole(self._file(source), json.dumps(entry, ensure_ascii=False))

    def _file(self, source: Source) -> Path:
        name = hashlib.sha256(source.address.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / f"{name[:32]}.json"

    def look(self, sources: Sequence[Source]) -> list[str | None]:
        """What is known of each source; a file of its own is read for each."""
        return [self.known(source) for source in sources]

    def of(
        self,
        sources: Sequence[Source],
        found: Sequence[str | None],
        hash_all: Hasher,
        *,
        remember: bool = True,
    ) -> list[dict[str, Any]]:
        """What the manifest keeps of each source. Those of which nothing was `found` (see `look`)
        are read; who only looks does not `remember` them."""
        unknown = [source for source, sha256 in zip(sources, found, strict=True) if not sha256]
        read_at = time.time()
        read = hash_all(unknown) if unknown else []
        for source, sha256 in zip(unknown, read, strict=True) if remember else ():
            self.remember(source, sha256, read_at)
        rest = iter(read)
        return [
            source_entry(source, sha256 or next(rest))
            for source, sha256 in zip(sources, found, strict=True)
        ]


def source_entry(source: Source, sha256: str) -> dict[str, Any]:
    """What the manifest keeps of a source."""
    return {
        "path": source.address,
        "split": source.split,
        "entry": source.entry,
        "kind": source.kind,
        "compression": source.compression,
        "bytes": source.bytes,
        "sha256": sha256,
    }


def hash_here(sources: Sequence[Source]) -> list[str]:
    """Read sources one after another in this process."""
    return [digest_of(source) for source in sources]
