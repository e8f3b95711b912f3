"""Text of any row, so that it can be looked at."""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Classes of bidirectional writing, as unicodedata calls them."""


def visible(text: str) -> str:
    """Control characters and lone surrogates as `\\x1b`: a terminal would obey them. Likewise those
    that turn the direction of writing, which could show one text and hide another."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _KEPT or character.isprintable():
        return character
    category = unicodedata.category(character)
    if category in ("Cc", "Cs") or unicodedata.bidirectional(character) in _TURNS:
        return repr(character)[1:-1]
    return character


def middle_left_out(text: str, most: int) -> str:
    """A text of at most about so many characters: its beginning and its end."""
    if len(text) <= most:
        return text
    left_out = len(text) - most
    return f"{text[: most // 2]} […{left_out:,} characters…] {text[-(most // 2) :]}"
