"""One row as it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LONGEST_ROW_BYTES = 32 * 2**20
"""A longer row is set aside and never held in memory: no sample of a model is near that."""
KEPT_BYTES = 2**20
"""Of a row that is none so much is kept, to be set aside: all that could have been a sample."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What stands where a row was expected. `reason` is one of a few short phrases, `raw` the
    beginning of its bytes."""

    reason: str
    detail: str = ""
    raw: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One row: its number within the unit, and either its columns or the reason it has none."""

    number: int
    columns: dict[str, Any] | None = None
    reason: str = ""
    detail: str = ""
    raw: bytes = b""
    """Of a row that failed, its first bytes."""

    @property
    def text(self) -> str:
        """`raw` for a person to see."""
        return self.raw.decode("utf-8", "replace")


Found = dict[str, Any] | Failed | None
"""What a reader finds, in the file's order: columns, a failed row, or a blank line."""


def failed(reason: str, detail: object, raw: bytes) -> Failed:
    """A failed row, of whose bytes no more is kept than need be."""
    return Failed(reason, str(detail)[:500], bytes(raw[:KEPT_BYTES]))
