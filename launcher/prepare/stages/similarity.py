"""How alike two texts are, and which ones to compare.

Texts are sets of word n-grams; their likeness is Jaccard's, the share of n-grams in common. MinHash
(Broder 1997) with banding (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, ch. 3) gives
each text a few numbers, of which two alike texts very likely share one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from launcher.prepare.cleaning.words import cutter

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_WORD_OR_HAN = re.compile(rf"{_HAN.pattern}|(?:(?!{_HAN.pattern})\w)+")
# Share of pairs of just the similarity asked for that are never compared.
_MISSED = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """`similarity` from which texts are near (Jaccard of `words`-grams), found by MinHash of
    `permutations` hash functions."""

    similarity: float
    words: int
    permutations: int


def grams(text: str, words: int) -> frozenset[int]:
    """64-bit hashes of the word n-grams of a text; of a shorter one the hash of all its words.

    Case, punctuation, width and white space make no difference. Chinese words are jieba's.
    """
    found = list(_words(unicodedata.normalize("NFKC", text).casefold()))
    ends = range(words, max(words, len(found)) + 1)
    return frozenset(_hash(found[end - words : end]) for end in ends)


def _hash(words: Sequence[str]) -> int:
    return xxhash.xxh3_64_intdigest(" ".join(words).encode("utf-8", "surrogatepass"))


def _words(text: str) -> Iterator[str]:
    for part in _WORD_OR_HAN.findall(text):
        if _HAN.match(part):
            yield from _cut(part)
        else:
            yield part


def _cut(text: str) -> Sequence[str]:
    return cutter("exact", None, True)(text)


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    """Elements in common by elements in all; 1 for two empty sets."""
    together = len(left | right)
    return len(left & right) / together if together else 1.0


def band_hashes(found: frozenset[int], how: Likeness) -> npt.NDArray[np.uint64]:
    """Numbers of which alike texts share one with high probability: uint64, (bands,)."""
    bands, rows = _banding(how)
    signature = _signature(found, how.permutations)[: bands * rows].reshape(bands, rows)
    return np.array(
        [xxhash.xxh3_64_intdigest(band.tobytes(), seed=n) for n, band in enumerate(signature)],
        np.uint64,
    )


def num_bands(how: Likeness) -> int:
    """How many numbers `band_hashes` gives."""
    return _banding(how)[0]


@cache
def _banding(how: Likeness) -> tuple[int, int]:
    """Bands, and rows in each: the longest bands that miss few of the pairs that are just near.

    Two texts of similarity s share a band of r rows with probability s^r, so that all of b bands
    miss them with (1 - s^r)^b.
    """
    for rows in range(how.permutations, 1, -1):
        bands = how.permutations // rows
        if (1 - how.similarity**rows) ** bands <= _MISSED:
            return bands, rows
    return how.permutations, 1


def _signature(found: frozenset[int], permutations: int) -> npt.NDArray[np.uint32]:
    from datasketch import MinHash

    sketch = MinHash(
        permutations,
        permutations=_permutations(permutations),
        scheme="affine32",
        hashfunc=_low,
    )
    sketch.update_batch(found)
    values: npt.NDArray[np.uint32] = sketch.hashvalues
    return values


@cache
def _permutations(count: int) -> Any:
    from datasketch import MinHash

    return MinHash(count, scheme="affine32").permutations


def _low(value: int) -> int:
    return value & 0xFFFFFFFF
