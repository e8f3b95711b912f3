"""Texts that say the same again and again: the rules of Gopher.

Rae et al. 2021, arXiv:2112.11446, table A1. All shares are of the characters that are no white
space. Where the paper says words, a Chinese character is one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, islice

from launcher.prepare.cleaning.unicode_classes import HAN
from launcher.prepare.unusable import Dropped
from recipes.data import steps

_WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+")
_FIRST_TOP, _FIRST_REPEATED = 2, 5
_LOOKED_AT = 200_000
"""Words; the sequences of all of them are in memory at once, 200 bytes for each."""


def repetition(step: steps.Repetition) -> Callable[[str], None]:
    def check(text: str) -> None:
        _check_lines(text, step)
        words = [found[0] for found in islice(_WORD.finditer(text), _LOOKED_AT)]
        if len(words) < max(step.min_words, 1):
            return
        total = sum(map(len, words))
        for length, most in enumerate(step.top_ngrams, start=_FIRST_TOP):
            _compare(top_characters(words, length), total, most, f"{length} words")
        for length, most in enumerate(step.repeated_ngrams, start=_FIRST_REPEATED):
            repeated = repeated_characters(words, length)
            if repeated == 0:
                break  # then no longer sequence is there twice
            _compare(repeated, total, most, f"{length} words")

    return check


def _check_lines(text: str, step: steps.Repetition) -> None:
    if "\n" not in text:
        return
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    once = set(lines)
    if len(once) == len(lines):
        return
    _compare(len(lines) - len(once), len(lines), step.lines, "lines")
    total = sum(map(len, lines))
    again = total - sum(map(len, once))
    _compare(again, total, step.line_characters, "characters of lines")


def _compare(part: int, total: int, most: float, what: str) -> None:
    if part > most * total:
        raise Dropped("repetition: too much", f"{part / total:.2f} of {what} are repeated")


def top_characters(words: Sequence[str], length: int) -> int:
    """Characters in the most frequent sequence of `length` words; 0 if none is there twice.

    Of several equally frequent ones the longest counts.
    """
    counts = Counter(zip(*(words[offset:] for offset in range(length)), strict=False))
    if not counts:
        return 0
    most = max(counts.values())
    if most == 1:
        return 0
    return most * max(sum(map(len, key)) for key, count in counts.items() if count == most)


def repeated_characters(words: Sequence[str], length: int) -> int:
    """Characters in sequences of `length` words that were there before, each counted once."""
    ends = [0, *accumulate(map(len, words))]
    seen: set[tuple[str, ...]] = set()
    counted = repeated = 0  # words before `counted` are counted already
    for begin, ngram in enumerate(zip(*(words[offset:] for offset in range(length)), strict=False)):
        if ngram in seen:
            first = max(begin, counted)
            counted = begin + length
            repeated += ends[counted] - ends[first]
        else:
            seen.add(ngram)
    return repeated
