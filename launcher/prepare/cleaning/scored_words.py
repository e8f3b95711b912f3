"""The words of a dictionary with their scores, laid out for being looked up many times.

Most places of a Chinese text begin no word of two characters, and of those that do, few begin a
longer one. So words of two are found by their first character and then by the second, without
making a text of both, and each says which characters lead on from it to a longer word.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NO_WORD = -math.inf
"""The score of the beginning of a word that is none itself."""

Pair = tuple[float, str | None]
"""The score of two characters, and every third character of a longer word that begins so."""

Character = tuple[str, float | None, dict[str, Pair]]
"""A character, its score if it is a word, and the pairs that begin with it by the second. The same
character is the same object everywhere, which is most of the speed: to find a pair, the texts of
others in the dictionary need not be fetched from memory and compared."""


@dataclass(frozen=True, slots=True)
class ScoredWords:
    """Scores are natural logarithms of the words' shares of all that was counted."""

    characters: Mapping[str, Character]
    """All that stand in words of one or two characters, and in beginnings of two."""

    frequencies: Mapping[str, int]
    """Of all words, and 0 of beginnings that are none themselves."""

    scores: Mapping[int, float]
    """By the frequency, which few words have for themselves."""

    unknown: float
    """What a character counts for at which no word begins."""

    def ascii_pairs(self) -> dict[str, str]:
        """The second characters by the first, of pairs in which both are ASCII."""
        found = {
            first: "".join(filter(str.isascii, pairs))
            for first, _, pairs in self.characters.values()
            if first.isascii()
        }
        return {first: seconds for first, seconds in found.items() if seconds}


def score_words(frequencies: Mapping[str, int], total: int) -> ScoredWords:
    """Of what `jieba_frequencies` gives, or the FREQ and total of a `jieba.Tokenizer`."""
    log_total = math.log(total)
    scores = {
        frequency: math.log(frequency) - log_total if frequency else NO_WORD
        for frequency in set(frequencies.values())
    }
    return ScoredWords(_characters(frequencies, scores), frequencies, scores, -log_total)


def _characters(
    frequencies: Mapping[str, int], scores: Mapping[int, float]
) -> dict[str, Character]:
    thirds: defaultdict[str, str] = defaultdict(str)
    for word in frequencies:
        if len(word) == 3:
            thirds[word[:2]] += word[2]
    alone: dict[str, float] = {}
    pairs: defaultdict[str, dict[str, Pair]] = defaultdict(dict)
    known: dict[str, str] = {}
    # Pairs that nothing follows, of which few are different.
    ends_here: dict[float, Pair] = {score: (score, None) for score in scores.values()}
    for word, frequency in frequencies.items():
        if not frequency or len(word) > 2:
            continue
        score = scores[frequency]
        if len(word) == 1:
            alone[known.setdefault(word, word)] = score
            continue
        second = word[1]
        following = thirds.pop(word, None)
        pair = ends_here[score] if following is None else (score, following)
        pairs[word[0]][known.setdefault(second, second)] = pair
    for beginning, following in thirds.items():
        second = beginning[1]
        pairs[beginning[0]][known.setdefault(second, second)] = (NO_WORD, following)
    for first in pairs:
        known.setdefault(first, first)
    none: dict[str, Pair] = {}
    return {c: (c, alone.get(c), pairs.get(c, none)) for c in known.values()}


def jieba_frequencies() -> tuple[dict[str, int], int]:
    """The words of jieba's own dictionary with their frequencies, and beginnings of three
    characters and more that are none themselves with 0; and the sum of the frequencies of all
    lines.

    `jieba.Tokenizer.gen_pfdict`, which gives shorter beginnings too, takes three times as long.
    """
    import jieba

    file = Path(jieba.__file__).with_name(jieba.DEFAULT_DICT_NAME)
    fields = file.read_text(encoding="utf-8").split()
    words, counts = fields[0::3], list(map(int, fields[1::3]))  # the third is its part of speech
    frequencies = dict(zip(words, counts, strict=True))
    for word in words:
        for end in range(len(word) - 1, 2, -1):
            if frequencies.setdefault(word[:end], 0):
                break  # a word, whose beginnings are done at its own turn
    return frequencies, sum(counts)
