"""Real reviews, English and Chinese, are cut into the words of jieba, to the last one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from launcher.prepare.cleaning import words
from launcher.prepare.cleaning.exact_words import exact_cutter
from launcher.samples import catalogue
from recipes.storage import default_cache

pytestmark = pytest.mark.slow

OWN = "酒店很好 50\n不错的\nbreakfast 9\nThe 3\n房间 99999 n\n很不 3\n"


def rows(name: str, file: str, count: int) -> Iterator[Any]:
    catalogue.make(name, Path(default_cache()), lambda _: None)
    with (catalogue.path(name, Path(default_cache())) / file).open(encoding="utf-8") as lines:
        yield from map(json.loads, islice(lines, count))


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    """As they are, and each beginning where another one of the other language ends."""
    chinese = [row["text"] for row in rows("reviews_zh", "reviews.jsonl", 4000)]
    chats = rows("movie_reviews", "train_all.jsonl", 1000)
    english = [chat["messages"][-2]["content"] for chat in chats]
    mixed = [a[-40:] + b[:80] + a[:30] for a, b in zip(chinese, english, strict=False)]
    return [*chinese, *english, *mixed]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("hmm", [False, True])
def test_reviews_are_cut_as_jieba_cuts_them(
    reviews: list[str], tmp_path: Path, hmm: bool, own: bool
):
    file = tmp_path / "own.txt"
    file.write_text(OWN, encoding="utf-8")
    dictionary = str(file) if own else None
    tokenizer = words._load(dictionary)
    cut = exact_cutter(words._scored(dictionary), hmm)
    assert len(reviews) == 6000
    for text in reviews:
        expected = [word for word in tokenizer.cut(text, HMM=hmm) if not word.isspace()]
        assert cut(text) == expected, text
