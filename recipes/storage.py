"""Where runs and prepared data lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recipes.address import is_address, what_is_wrong
from recipes.problem import Problem


def default_cache() -> str:
    """The folder of samples and prepared data: $SHOAL_CACHE, or ~/.cache/shoal."""
    return os.environ.get("SHOAL_CACHE") or str(Path.home() / ".cache" / "shoal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    path: str = "runs"
    """Holds one folder per run: a folder that every node sees, or `s3://bucket/prefix`."""

    cache: str = field(default_factory=default_cache)
    """Folder of prepared data and samples; every node must see it. Default: $SHOAL_CACHE."""

    def problems(self) -> Iterator[Problem]:
        for name in ("path", "cache"):
            value = getattr(self, name)
            if not value.strip():
                yield Problem(path=f"storage.{name}", value=value, message="is empty")
        if is_address(self.path) and (wrong := what_is_wrong(self.path)):
            yield Problem(path="storage.path", value=self.path, message=wrong)
        if is_address(self.cache):
            yield Problem(
                path="storage.cache",
                value=self.cache,
                message="can only be a folder",
                hint="Name a folder that every node sees, such as a network file system",
            )
