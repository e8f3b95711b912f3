"""Segmenting with jieba, dictionaries, and stop words."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jieba
import pytest

from launcher.prepare.cleaning import clean, words
from recipes.data import steps
from recipes.errors import DataError

ZH = "小明硕士毕业于中国科学院计算所，后在日本京都大学深造。他来到了网易杭研大厦。"
MIXED = "iPhone 15的价格是3.5元/件！Hello，world"


def segmented(text: str, **options: Any) -> str:
    return clean(text, [steps.Segment(**options)])


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ({}, jieba.lcut),
        ({"hmm": False}, lambda text: jieba.lcut(text, HMM=False)),
        ({"mode": "full"}, lambda text: jieba.lcut(text, cut_all=True)),
        ({"mode": "search"}, jieba.lcut_for_search),
        ({"mode": "search", "hmm": False}, lambda text: jieba.lcut_for_search(text, HMM=False)),
    ],
)
def test_modes_are_those_of_jieba(options: dict[str, Any], cut: Callable[[str], list[str]]):
    for text in (ZH, MIXED, "", "的", "他来到了网易杭研大厦"):
        expected = [word for word in cut(text) if word.strip()]
        assert segmented(text, separator="|", **options) == "|".join(expected)
    assert segmented(ZH) != segmented(ZH, hmm=False) != segmented(ZH, mode="full")


def test_punctuation_and_separator():
    assert segmented("好，不好？ok...", punctuation="drop", separator="/") == "好/不好/ok"
    assert segmented("好，不好？", separator="  ") == "好  ，  不好  ？"


def test_lines_stay_lines():
    assert segmented("今天天气 很好\n\n  我们去公园") == "今天天气 很 好\n\n我们 去 公园"


def test_what_jieba_would_take_apart_stays_whole():
    family = "👨\u200d👩\u200d👧"
    text = f"我喜欢café和привет{family}，ＡＢＣ cafe\u0301"
    assert segmented(text) == f"我 喜欢 café 和 привет {family} ， ＡＢＣ cafe\u0301"


def test_where_no_whole_word_is_looked_for_there_is_none():
    chance = random.Random(1)
    parts = (
        "中文ab1_ ，·°→①é٣яかﬁ\u0301\u200c\u200d😀👍\n"
        "\U0001f3fd\U000e0067\U00020000\U0001d165\U0001e800"
    )
    anywhere = [chr(code) for code in chance.sample(range(0x20000), 2000)]
    skipped = 0
    for alphabet in (parts, anywhere, "中文a1_，·°→😀👍\U00020000"):
        for _ in range(2000):
            text = "".join(chance.choices(alphabet, k=chance.randrange(1, 5)))
            if not words._may_hold_whole()(text):
                skipped += 1
                assert words._whole().search(text) is None, ascii(text)
    assert skipped > 2000
    assert not words._may_hold_whole()("好吃😀👍，25℃·★→")
    assert segmented("好吃😀👍，25°·★→") == "好吃 😀 👍 ， 25 ° · ★ →"


def test_nothing_but_spaces_is_added_or_lost():
    letters = random.Random(0)
    alphabet = "中文的了酒店很好abc12 .,，。！\n\t😀\u200dé\ud800\x00\U00020000"
    for _ in range(200):
        text = "".join(letters.choices(alphabet, k=letters.randrange(60)))
        assert "".join(segmented(text).split()) == "".join(text.split())


def test_a_run_without_end_is_cut_in_pieces():
    """Of more than 1,000 characters jieba's time grows with the square."""
    run = "的" * 2500
    pieces = [run[n : n + 1000] for n in range(0, 2500, 1000)]
    assert segmented(f"好，{run}。") == " ".join(
        ["好", "，", *(word for piece in pieces for word in jieba.cut(piece)), "。"]
    )


def test_a_user_dictionary_changes_cuts_and_nobody_elses(tmp_path: Path):
    file = tmp_path / "words.txt"
    file.write_text("\ufeff网易杭研大厦\n云 计算 n\n来到了 100000 v\n", encoding="utf-8")
    text = "他来到了网易杭研大厦"
    own = segmented(text, dictionary=str(file))
    assert own == "他 来到了 网易杭研大厦"
    assert segmented(text) == "他 来到 了 网易 杭研 大厦" == " ".join(jieba.cut(text))
    assert words.read_dictionary(str(file)) == [
        ("网易杭研大厦", None),
        ("云 计算", None),
        ("来到了", 100000),
    ]


def test_dictionaries_that_cannot_be_used(tmp_path: Path):
    file = tmp_path / "words.txt"
    file.write_bytes("词".encode("gbk"))
    with pytest.raises(DataError, match=r"words\.txt: cannot be read .* must be UTF-8"):
        segmented("a", dictionary=str(file))
    file.write_text("好 3\n台中 0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"words\.txt:2: '台中 0' has the frequency 0"):
        segmented("a", dictionary=str(file))
    with pytest.raises(DataError, match="all nodes"):
        segmented("a", dictionary=str(tmp_path / "none.txt"))


def test_jieba_leaves_and_reads_no_file_in_the_common_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "jieba.cache").write_bytes(b"anybody's")
    words._tokenizer.__wrapped__(None)
    assert (tmp_path / "jieba.cache").read_bytes() == b"anybody's"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我们的房间很干净，但是早餐不好", "房间干净，早餐不好"),
        ("This is THE best film, and I don't like it", "film,"),
        ("(the film), the", "(film),"),
        ("the a\nan film\n", "\nfilm\n"),
        ("  film  the  hotel ", "  film   hotel "),
        ("", ""),
        ("，。！ 123 😀", "，。！ 123 😀"),
    ],
)
def test_stop_words(text: str, expected: str):
    step = steps.StopWords(languages=["zh", "en"])
    assert clean(text, [step]) == expected


def test_stop_words_of_a_file(tmp_path: Path):
    file = tmp_path / "stop.txt"
    file.write_text("酒店\n\nFilm\n，\n", encoding="utf-8")
    by_jieba = steps.StopWords(file=str(file))
    assert clean("这家酒店，film", [by_jieba]) == "这家，"
    by_spaces = steps.StopWords(file=str(file), words="spaces")
    assert clean("这家 酒店 ， film\n大酒店", [by_spaces]) == "这家\n大酒店"
