"""Filters: which rows they drop, and what they are counted under."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from stopwordsiso import langs

from launcher.prepare.cleaning import clean, repetition
from launcher.prepare.cleaning.repetition import repeated_characters, top_characters
from launcher.prepare.unusable import Dropped
from recipes.data import steps
from recipes.data.steps import CleaningStep
from recipes.data.steps.languages import IDENTIFIED, STOP_WORDS

ZH = "酒店的位置很好，离地铁站步行只要五分钟，房间也很干净，就是早餐的种类太少了。"
EN = "The hotel is close to the station and the room was clean, but breakfast was a let-down."
OTHERS = [
    "L'hôtel est proche de la gare et la chambre était propre, mais le petit déjeuner décevant.",
    "Das Hotel liegt nahe am Bahnhof und das Zimmer war sauber, nur das Frühstück enttäuschte.",
    "ホテルは駅から近くて部屋もきれいでしたが、朝食にはがっかりしました。",
    "호텔은 역에서 가깝고 방도 깨끗했지만 아침 식사는 실망스러웠습니다.",
    "Отель находится рядом с вокзалом, номер чистый, но завтрак разочаровал.",
]


def reason(text: str, step: CleaningStep) -> str | None:
    try:
        assert clean(text, [step]) == text
    except Dropped as dropped:
        return dropped.reason
    return None


@pytest.mark.parametrize(
    ("text", "step", "expected"),
    [
        ("中文", steps.Characters(min=3), "characters: too few"),
        ("中文字", steps.Characters(min=3, max=3), None),
        ("中文字a", steps.Characters(max=3), "characters: too many"),
        ("", steps.Characters(), "characters: too few"),
        (ZH, steps.Symbols(), None),
        (EN + " (50% off!) – “yes”", steps.Symbols(max=0.0), None),
        ("हिन्दी में", steps.Symbols(max=0.0), None),
        ("### *** $$$ ~~~ ok", steps.Symbols(), "symbols: too many"),
        ("😀😀😀好", steps.Symbols(max=0.74), "symbols: too many"),
        ("😀😀😀好", steps.Symbols(max=0.75), None),
        ("_____好", steps.Symbols(), "symbols: too many"),
        ("", steps.Symbols(max=0.0), None),
        ("123 45 ab", steps.Digits(), "digits: too many"),
        ("１２三四", steps.Digits(), None),
        ("12 ab", steps.Digits(), None),
        (ZH, steps.DropMatching(pattern="地铁|公交"), "drop_matching: 地铁|公交"),
        (ZH, steps.DropMatching(pattern="^地铁"), None),
        (ZH, steps.KeepMatching(pattern="酒店"), None),
        (EN, steps.KeepMatching(pattern="酒店"), "keep_matching: 酒店"),
    ],
)
def test_what_is_dropped(text: str, step: CleaningStep, expected: str | None):
    assert reason(text, step) == expected


def test_languages():
    both, zh = steps.Language(), steps.Language(keep=["zh"], min_probability=0.5)
    assert [reason(text, both) for text in (ZH, EN, ZH[:10] + EN[:40])] == [None, None, None]
    assert [reason(text, both) for text in OTHERS] == ["language: another"] * len(OTHERS)
    assert [reason(text, zh) for text in (ZH, EN)] == [None, "language: another"]
    assert reason("Bonjour", both) is None  # too short to tell
    assert reason("1 2 3 4 5 6 7 8 9 0 ! ? . , ;", both) == "language: another"
    assert reason("\ud800" * 30, both) == "language: another"
    assert reason(ZH + OTHERS[0] * 1000, zh) == "language: another"
    # Short standard Chinese is often taken for Wu or Cantonese, which are written with the same
    # characters.
    short = steps.Language(keep=["zh"], min_characters=0)
    assert [reason(text, short) for text in ("你好", "太差了", "很好")] == [None] * 3


def test_the_languages_written_down_are_those_of_the_libraries():
    known = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).labels
    assert set(IDENTIFIED) == set(known)
    assert set(STOP_WORDS) == langs()


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        (ZH * 2, True),
        (" ".join([EN] * 4), True),
        ("好评！" * 30, True),
        ("buy now " * 30, True),
        ("a line of a menu\n" * 3 + ZH, True),
        (f"{ZH}\n{EN}\n{OTHERS[0]}\n{OTHERS[1]}", False),
        ("好评！" * 3, False),
        ("", False),
    ],
)
def test_texts_that_say_the_same_again(text: str, repeats: bool):
    assert reason(text, steps.Repetition()) == ("repetition: too much" if repeats else None)


def test_shares_of_repetition_against_their_definition():
    """Gopher's shares, counted character by character."""
    words = re.split(" ", "a bb a bb a c d e a bb c d e x yy a bb a")
    for length in (2, 3, 4):
        grams = [tuple(words[n : n + length]) for n in range(len(words) - length + 1)]
        counts = Counter(grams)
        most = max(counts.values())
        expected = max(most * len("".join(g)) for g, n in counts.items() if n == most)
        assert top_characters(words, length) == (expected if most > 1 else 0)
        marked = [False] * len(words)
        for n, gram in enumerate(grams):
            if gram in grams[:n]:
                marked[n : n + length] = [True] * length
        covered = sum(len(word) for word, is_again in zip(words, marked, strict=True) if is_again)
        assert repeated_characters(words, length) == covered
    assert top_characters(["a"], 2) == repeated_characters(["a"], 2) == 0


def test_of_a_book_the_beginning_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    text = " ".join(f"word{number}" for number in range(100)) + " again and" * 100
    assert reason(text, steps.Repetition()) == "repetition: too much"
    monkeypatch.setattr(repetition, "_LOOKED_AT", 100)
    assert reason(text, steps.Repetition()) is None
