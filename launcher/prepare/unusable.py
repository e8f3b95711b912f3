"""Rows that do not become samples."""

from __future__ import annotations


class Unusable(Exception):
    """A row that cannot become a sample; `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Dropped(Unusable):
    """A row that the recipe leaves out on purpose, such as by a step of data.clean."""
