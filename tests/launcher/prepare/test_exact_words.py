"""The words are jieba's, to the last one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from launcher.prepare.cleaning import words
from launcher.prepare.cleaning.exact_words import exact_cutter


@pytest.fixture(scope="module")
def jieba_itself(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With two words of a user: one of its own frequency, one of jieba's choice."""
    file: Path = tmp_path_factory.mktemp("words") / "own.txt"
    file.write_text("杭研大厦 7 n\n的第二次\n", encoding="utf-8")
    return words._load(str(file))


@pytest.fixture(scope="module")
def texts(jieba_itself: Any) -> list[str]:
    """Words of the dictionary and beginnings of words, names it does not know, letters, numbers,
    signs and white space, put together by chance."""
    chance = random.Random(7)
    known = chance.sample(sorted(jieba_itself.FREQ), 4000)
    others = [
        *"的一是不了王赵妤翀𠮷。，！ \t\n\r&#+%._-",
        "\r\n",
        "C++",
        "3.14",
        "100%",
        "iPhone",
        "",
    ]
    return [
        "".join(chance.choice(known if chance.random() < 0.6 else others) for _ in range(length))
        for length in (*range(12), *([8] * 1500), *([40] * 60))
    ]


@pytest.mark.parametrize("hmm", [True, False])
def test_every_word_is_the_one_of_jieba(jieba_itself: Any, texts: list[str], hmm: bool):
    cut = exact_cutter(jieba_itself, hmm)
    for text in texts:
        assert cut(text) == list(jieba_itself.cut(text, HMM=hmm)), text
        assert "".join(cut(text)) == text


def test_of_two_ways_alike_the_longer_word_is_taken():
    """As jieba takes the last of those with the same probability."""

    class Two:
        FREQ = {"甲": 10, "甲乙": 1, "乙": 1}
        total = 10

    # log(10/10) + log(1/10) for both.
    assert exact_cutter(Two, False)("甲乙") == ["甲乙"]
