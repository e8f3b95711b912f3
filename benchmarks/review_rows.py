"""As many rows as are asked for, made of the sentences of two samples: reviews in Chinese, and in
English.

The samples' own rows come first, equal ones once. What follows are the first half of one row and
the second half of another of the same sample, cut where a sentence or a part of one ends near the
middle; no two rows have both halves in common. So lengths, words and languages are those of the
samples, 7 rows of 10 are Chinese, and every run makes the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

_END = re.compile(r"[，。！？；、,.!?;]\s*")
_STRIDE = 7919  # a prime that is no divisor of the number of rows


def write_rows(samples: Path, file: Path, num_rows: int) -> None:
    """Write rows `{"text": …}` as JSON lines. `samples` holds reviews_zh and movie_reviews."""
    chinese = _endless(_texts(samples / "reviews_zh" / "reviews.jsonl"))
    english = _endless(_texts(samples / "movie_reviews" / "train_all.jsonl"))
    with file.open("w", encoding="utf-8") as stream:
        for number in range(num_rows):
            text = next(english if number % 10 in (2, 5, 8) else chinese)
            stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def _texts(file: Path) -> list[str]:
    """The different texts of a sample, in its order."""
    found: dict[str, None] = {}
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            found[row["text"] if "text" in row else row["messages"][1]["content"]] = None
    return list(found)


def _endless(texts: Sequence[str]) -> Iterator[str]:
    """The texts, then their halves put together anew."""
    yield from texts
    halves = [_halves(text) for text in texts]
    first = list(dict.fromkeys(half for half, _ in halves))
    second = list(dict.fromkeys(half for _, half in halves))
    for turn in count(1):
        for place, half in enumerate(first):
            yield half + second[(place + turn * _STRIDE) % len(second)]


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    ends = [found.end() for found in _END.finditer(text)] or [middle]
    cut = min(ends, key=lambda end: abs(end - middle))
    return text[:cut], text[cut:]
