"""Writing characters in one way: Unicode forms, what nobody sees, punctuation, white space."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from launcher.prepare.cleaning.unicode_classes import ABOVE_BASIC, by_plane, of_categories
from recipes.data import steps

Rewrite = Callable[[str], str]
Search = Callable[[str], re.Match[str] | None]


def normalize_unicode(step: steps.NormalizeUnicode) -> Rewrite:
    if step.form == "width":
        return _narrow
    if step.form == "NFC":
        return lambda text: unicodedata.normalize("NFC", text)
    return _compatible


# What most Chinese texts have of characters that NFKC writes otherwise.
_FREQUENT = {mark: unicodedata.normalize("NFKC", mark) for mark in "，！？：（）；…"}


def _compatible(text: str) -> str:
    """In the form NFKC. It begins by writing each character as what it decomposes to, so to do that
    for some of them first changes nothing; a text of which that was all is only looked through, in
    a seventh of the time."""
    for mark, narrow in _FREQUENT.items():
        text = text.replace(mark, narrow)
    return unicodedata.normalize("NFKC", text)


# Marks that Chinese is written with stay wide; wide letters, digits and all other signs are only
# another way of writing ASCII.
_WIDE_MARKS = "！（），：；？［］～"
_NARROW = {
    code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in _WIDE_MARKS
} | {0x3000: 0x20}
_WIDE = re.compile(f"[{''.join(map(chr, _NARROW))}]")
# Half-width katakana, their marks, and Hangul; voiced ones are two characters and become one.
_HALF = re.compile(r"[\uff61-\uffdc]+")


def _narrow(text: str) -> str:
    if text.isascii():
        return text
    text = _WIDE.sub(lambda found: chr(_NARROW[ord(found[0])]), text)
    return _HALF.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)


# Control and format characters, lone surrogates, which no file can hold, and non-characters.
_NOBODY_SEES = ("Cc", "Cf", "Cs")
_NO_CHARACTERS = r"\ufdd0-\ufdef\ufffe\uffff"


@cache
def _unseen() -> re.Pattern[str]:
    return re.compile(rf"(?![\t\n])[{of_categories(*_NOBODY_SEES)}{_NO_CHARACTERS}]")


@cache
def _find_unseen() -> tuple[Search, Search]:
    """Which together find something where `_unseen` does, and take a tenth of its time."""
    basic, above = by_plane(*_NOBODY_SEES)
    return (
        re.compile(rf"[{basic}{_NO_CHARACTERS}](?<![\t\n])").search,
        re.compile(rf"[{ABOVE_BASIC}](?<=[{above}])").search,
    )


_LINE_END = re.compile(r"[\r\x0b\x0c\x85](?:(?<=\r)\n)?")
_EMOJI = r"[\u00a9\u00ae\u2000-\u3300\ufe0f\U0001f000-\U0001faff]"
# Arabic, the scripts of India and its neighbours, Mongolian.
_JOINING = r"[\u0600-\u109f\u1780-\u18af\ufb50-\ufdcf\ufe70-\ufefc\U00011000-\U00011fff]"
# What has to stay: a joiner inside emoji such as a family, one inside a word of a script whose
# letters join, and the letters of a flag such as Scotland's.
_NEEDED = (
    rf"(?<={_EMOJI})\u200d(?={_EMOJI})"
    rf"|(?<={_JOINING})[\u200c\u200d](?={_JOINING})"
    r"|(?<=\U0001f3f4)[\U000e0061-\U000e007a]{1,6}\U000e007f"
)


def strip_control(step: steps.StripControl) -> Rewrite:
    unseen = _unseen()
    find_basic, find_above = _find_unseen()
    needed = re.compile(rf"({_NEEDED})|{unseen.pattern}") if step.joiners == "keep" else None

    def strip(text: str) -> str:
        if text.isprintable():
            return text
        text = _LINE_END.sub("\n", text)
        if find_basic(text) is None and find_above(text) is None:
            return text
        if needed is not None:
            return needed.sub(lambda found: found[1] or "", text)
        return unseen.sub("", text)

    return strip


def collapse_punctuation(step: steps.CollapsePunctuation) -> Rewrite:
    basic, above = by_plane("P", "Sm", "Sk")
    run = re.compile(rf"([{basic}])\1{{{step.longest},}}")
    rare_run = re.compile(rf"([{ABOVE_BASIC}])(?<=[{above}])\1{{{step.longest},}}")

    # Not r"\1\1\1", which takes longer to look up than most texts to be searched.
    def shorten(found: re.Match[str]) -> str:
        return found[0][: step.longest]

    return lambda text: rare_run.sub(shorten, run.sub(shorten, text))


def remove_punctuation(step: steps.RemovePunctuation) -> Rewrite:
    """Characters of Unicode's categories P*, Chinese and Western alike."""
    basic, above = by_plane("P")
    marks = re.compile(rf"[{basic}]+")
    rare_mark = re.compile(rf"[{ABOVE_BASIC}](?<=[{above}])")
    return lambda text: rare_mark.sub("", marks.sub("", text))


def collapse_whitespace(step: steps.CollapseWhitespace) -> Rewrite:
    # str.split knows white space as \s does, and takes a fifth of the time.
    if step.lines == "join":
        return lambda text: " ".join(text.split())
    return _collapse_lines


def _collapse_lines(text: str) -> str:
    """Runs of white space within a line become one space; of empty lines one stays."""
    lines: list[str] = []
    for line in text.splitlines():
        words = " ".join(line.split())
        if words or (lines and lines[-1]):
            lines.append(words)
    return "\n".join(lines).rstrip("\n")


def replace(step: steps.Replace) -> Rewrite:
    pattern = re.compile(step.pattern)
    return lambda text: pattern.sub(step.replacement, text)
