"""Where runs and prepared data lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recipes.problem import Problem


def default_cache() -> str:
    """The folder of samples and prepared data: $SHOAL_CACHE, or ~/.cache/shoal."""
    return os.environ.get("SHOAL_CACHE") or str(Path.home() / ".cache" / "shoal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    path: str = "runs"
    """Folder that holds one folder per run; every node must see it."""

    cache: str = field(default_factory=default_cache)
    """Folder of prepared data and samples; every node must see it. Default: $SHOAL_CACHE."""

    def problems(self) -> Iterator[Problem]:
        for name in ("path", "cache"):
            value = getattr(self, name)
            if not value.strip():
                yield Problem(path=f"storage.{name}", value=value, message="is empty")
            elif "://" in value:
                yield Problem(
                    path=f"storage.{name}",
                    value=value,
                    message="only folders can be used in this version",
                    hint="Name a folder that every node sees, such as a network file system",
                )
