"""Writing characters in one way: Unicode forms, what nobody sees, punctuation, white space."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from launcher.prepare.cleaning.unicode_classes import of_categories
from recipes.data import steps

Rewrite = Callable[[str], str]


def normalize_unicode(step: steps.NormalizeUnicode) -> Rewrite:
    if step.form == "width":
        return _narrow
    form = step.form

    def normalize(text: str) -> str:
        # A third of the time of normalising, and most texts are normal.
        return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)

    return normalize


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


@cache
def _unseen() -> re.Pattern[str]:
    # Control and format characters, lone surrogates, which no file can hold, and non-characters.
    nobody = of_categories("Cc", "Cf", "Cs")
    return re.compile(rf"(?![\t\n])[{nobody}\ufdd0-\ufdef\ufffe\uffff]")


_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x85]")
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
    needed = re.compile(rf"({_NEEDED})|{unseen.pattern}") if step.joiners == "keep" else None

    def strip(text: str) -> str:
        if text.isprintable():
            return text
        text = _LINE_END.sub("\n", text)
        if needed is not None:
            return needed.sub(lambda found: found[1] or "", text)
        return unseen.sub("", text)

    return strip


def collapse_punctuation(step: steps.CollapsePunctuation) -> Rewrite:
    marks = of_categories("P", "Sm", "Sk")
    run = re.compile(rf"([{marks}])\1{{{step.longest},}}")
    kept = r"\1" * step.longest
    return lambda text: run.sub(kept, text)


def remove_punctuation(step: steps.RemovePunctuation) -> Rewrite:
    """Characters of Unicode's categories P*, Chinese and Western alike."""
    marks = re.compile(rf"[{of_categories('P')}]+")
    return lambda text: marks.sub("", text)


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
