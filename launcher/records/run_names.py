"""Names of runs: several of one name are told apart by -2, -3, …, wherever they are kept."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence


def numbered(name: str) -> Iterator[str]:
    """`name`, `name-2`, `name-3`, … without end."""
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def newest(name: str, known: Iterable[str]) -> str | None:
    """Of some runs the one of this name with the highest number, or None."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    found = [(int(match[1] or 1), run) for run in known if (match := pattern.fullmatch(run))]
    return max(found)[1] if found else None


def near(name: str, known: Sequence[str]) -> str | None:
    """The run whose name is most like one that does not exist."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
