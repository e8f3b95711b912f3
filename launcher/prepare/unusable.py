"""Rows that do not become samples."""

from __future__ import annotations

from collections.abc import Mapping

_REMEDIES: Mapping[str, str] = {
    "no known column": "Name the columns that hold the text with data.columns, as in {text: NAME}",
    "not UTF-8": "Convert the file, a Chinese one mostly by iconv -f GB18030 -t UTF-8",
    "chat template refuses": "Use a base that was made for chat, or give data.chat_template",
    "too long": "Raise data.sequence_length, or cut samples with data.too_long",
}


def remedy(reason: str, otherwise: str = "") -> str:
    """What helps against a reason, as a sentence without its end; `otherwise` where no one thing
    does."""
    return _REMEDIES.get(reason, otherwise)


def with_remedy(reason: str) -> str:
    """The same as what follows a message, or nothing."""
    return f". {remedy(reason)}" if remedy(reason) else ""


class Unusable(Exception):
    """A row that cannot become a sample; `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Dropped(Unusable):
    """A row that the recipe leaves out on purpose, such as by a step of data.clean."""
