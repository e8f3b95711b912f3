"""The words are jieba's, to the last one."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jieba
import pytest
from jieba import finalseg

from launcher.prepare.cleaning import words
from launcher.prepare.cleaning.exact_words import exact_cutter
from launcher.prepare.cleaning.markov import model_cutter
from launcher.prepare.cleaning.scored_words import jieba_frequencies, score_words


@pytest.fixture(scope="module")
def jieba_itself(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With words of a user: of their own frequency, of jieba's choice, with letters and signs."""
    file: Path = tmp_path_factory.mktemp("words") / "own.txt"
    lines = ["杭研大厦 7 n", "的第二次", "iphone", "a.b 3", "x 9", "9折 40", "q'r", "中 文 2"]
    file.write_text("\n".join(lines), encoding="utf-8")
    return words._load(str(file))


@pytest.fixture(scope="module")
def cut(jieba_itself: Any) -> Callable[[bool], Callable[[str], list[str]]]:
    scored = score_words(jieba_itself.FREQ, jieba_itself.total)
    cutters = {hmm: exact_cutter(scored, hmm) for hmm in (True, False)}
    return cutters.__getitem__


def seen(found: Any) -> list[str]:
    return [word for word in found if not word.isspace()]


@pytest.fixture(scope="module")
def texts(jieba_itself: Any) -> list[str]:
    """Words of the dictionary and beginnings of words, names it does not know, letters, numbers,
    signs and white space, put together by chance."""
    chance = random.Random(7)
    known = chance.sample(sorted(jieba_itself.FREQ), 4000)
    letters = [word for word in jieba_itself.FREQ if not word.isalpha() or word.isascii()]
    rare = [chr(code) for code in chance.sample(range(0x3400, 0xA000), 300)]
    others = [
        *"的一是不了王赵妤翀𠮷😀é٣。，！ \t\n\r\x1c\x85\u3000\ud800\ufeff#+%._-'&",
        *("\r\n", "C++", "3.14", "100%", "5.%", "iPhone", "VISA", "AT&", "q'r", "a.b", "The", "cd"),
    ]
    kinds = (known, known, others, others, rare, letters)
    lengths = (*range(12), *([8] * 1500), *([40] * 60), 1000)
    return [
        "".join(chance.choice(chance.choice(kinds)) for _ in range(length)) for length in lengths
    ]


@pytest.mark.parametrize("hmm", [True, False])
def test_every_word_is_the_one_of_jieba(jieba_itself: Any, cut: Any, texts: list[str], hmm: bool):
    for text in texts:
        assert cut(hmm)(text) == seen(jieba_itself.cut(text, HMM=hmm)), text


@pytest.mark.parametrize("hmm", [True, False])
def test_ascii_is_cut_as_jieba_cuts_it(jieba_itself: Any, cut: Any, hmm: bool):
    """Most of it by a regular expression: of few characters, so that all is next to all."""
    chance = random.Random(8)
    for alphabet in ("aX1.%+ ", "ab.&-5%", "cC+#ABT&IP的", "Tofu bar, 10%!\n"):
        for _ in range(1000):
            text = "".join(chance.choices(alphabet, k=chance.randrange(14)))
            assert cut(hmm)(text) == seen(jieba_itself.cut(text, HMM=hmm)), text


@pytest.mark.parametrize("hmm", [True, False])
def test_every_character_and_every_two_are_cut_as_jieba_cuts_them(
    jieba_itself: Any, cut: Any, hmm: bool
):
    """Beginnings of words that are none themselves, and what is in no dictionary."""
    chance = random.Random(9)
    alone = [chr(code) for code in (*range(0x80), *range(0x4DFF, 0x9FFF, 5))]
    beginnings = [word for word, frequency in jieba_itself.FREQ.items() if not frequency]
    for text in [*alone, *chance.sample(beginnings, 3000)]:
        for longer in (text, text + "的", "不" + text, text + text[:1]):
            assert cut(hmm)(longer) == seen(jieba_itself.cut(longer, HMM=hmm)), longer


@pytest.mark.parametrize("hmm", [True, False])
def test_a_long_text_is_cut_in_parts_and_no_word_of_it(
    jieba_itself: Any, cut: Any, texts: list[str], hmm: bool
):
    long = "".join(texts)
    assert len(long) > 30_000
    assert cut(hmm)(long) == seen(jieba_itself.cut(long, HMM=hmm))
    few = "".join("，" * (place % 997 == 0) + "的中国a"[place % 4] for place in range(45_000))
    assert cut(hmm)(few) == seen(jieba_itself.cut(few, HMM=hmm))


def test_what_cutting_a_long_text_takes_is_bounded(cut: Any):
    long = "这家酒店很好，the room is fine。" * 40_000
    tracemalloc.start()
    try:
        kept = cut(True)(long)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == 400_000
    assert peak - now < 10 * 2**20


def test_of_two_ways_alike_the_longer_word_is_taken():
    """As jieba takes the last of those with the same probability."""
    # log(10/10) + log(1/10), and log(1/10).
    two = score_words({"甲": 10, "甲乙": 1, "乙": 1}, 10)
    assert exact_cutter(two, False)("甲乙") == ["甲乙"]
    three = score_words({"甲": 10, "甲乙": 0, "甲乙丙": 1, "乙丙": 1}, 10)
    assert exact_cutter(three, False)("甲乙丙") == ["甲乙丙"]


def test_a_run_without_end_is_cut_as_jieba_cuts_it(jieba_itself: Any, cut: Any):
    chance = random.Random(10)
    for alphabet in ("的", "的了", "妤翀", "中文字典", "a1.", "9折"):
        text = "".join(chance.choices(alphabet, k=2000))
        for hmm in (True, False):
            assert cut(hmm)(text) == list(jieba_itself.cut(text, HMM=hmm))


def test_the_model_is_the_one_of_jieba():
    """Of characters that it knows in all states, in some, and in none."""
    chance = random.Random(11)
    states = [set(emitted) for emitted in finalseg.emit_P.values()]
    chinese = [chr(code) for code in range(0x4E00, 0x9FD6)]
    in_all = sorted(set.intersection(*states))
    in_some = sorted(set.union(*states).difference(in_all).intersection(chinese))
    assert len(in_some) > 1000
    cut_chinese = model_cutter()
    for kinds in ([in_all], [in_some], [in_all, in_some, chinese], [chinese[-200:]]):
        for _ in range(1500):
            characters = (
                chance.choice(chance.choice(kinds)) for _ in range(chance.randrange(1, 9))
            )
            run = "".join(characters)
            assert cut_chinese(run) == list(finalseg.cut(run)), run


def test_the_dictionary_is_the_one_that_jieba_reads():
    tokenizer = jieba.Tokenizer()
    expected, expected_total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    frequencies, total = jieba_frequencies()
    assert total == expected_total
    # Shorter beginnings are found by their characters.
    assert frequencies == {w: count for w, count in expected.items() if count or len(w) > 2}
