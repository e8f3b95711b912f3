"""Cleaning, segmenting, and what a row becomes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jieba
import pytest

from launcher.prepare.cleaning import clean
from launcher.prepare.shapes import Sample, to_sample
from launcher.prepare.unusable import Unusable
from recipes.base import Base
from recipes.data import Data, Source, steps
from recipes.recipe import Recipe
from recipes.train import Train

PLAIN = Recipe(
    name="r", base=Base(source="b"), data=Data(train=[Source(path="a.jsonl")]), train=Train(steps=1)
)


def recipe(task: str = "causal_lm", **data: Any) -> Recipe:
    return dataclasses.replace(PLAIN, task=task, data=dataclasses.replace(PLAIN.data, **data))


def test_the_reference_sentence_is_exactly_what_jieba_gives():
    text = "人工智能正在改变世界！我们需要更多数据来训练模型。"
    sample = to_sample({"text": text}, recipe(clean=[steps.RemovePunctuation(), steps.Segment()]))
    bare = text.replace("！", "").replace("。", "")
    assert sample.text == " ".join(jieba.lcut(bare))
    assert sample.text == "人工智能 正在 改变 世界 我们 需要 更 多 数据 来 训练 模型"
    assert sample.text.replace(" ", "") == bare


def test_segmenting_loses_nothing_but_spaces():
    for text in ["", "  ", "hello world 你好", "第1章\n\t概述😀", "a", "的的的"]:
        assert "".join(clean(text, [steps.Segment()]).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("step", "text", "cleaned"),
    [
        ("normalize_unicode", "ＡＢ１２！ﬁ", "AB12!fi"),
        ("strip_html", "a<br/>b &amp; <i>c</i> 1 < 2", "a\nb & c 1 < 2"),
        ("strip_urls", "see https://a.b/c?d=e，好 www.x.org now", "see ，好  now"),
        ("strip_control", "a\x00b\u200bc\td\n", "abc\td\n"),
        ("remove_punctuation", "it's 好，不好？(a-b) $5 +1 “q”…", "its 好不好ab $5 +1 q"),
        ("collapse_whitespace", " a \n\t b\u3000c ", "a b c"),
    ],
)
def test_steps(step: str, text: str, cleaned: str):
    assert clean(text, [steps.STEPS[step]()]) == cleaned


def test_steps_are_taken_in_order():
    assert clean("＜b＞x", [steps.NormalizeUnicode(), steps.StripHtml()]) == "x"
    assert clean("＜b＞x", [steps.StripHtml(), steps.NormalizeUnicode()]) == "<b>x"


def test_what_rows_become():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert to_sample({"messages": chat, "id": 1}, recipe()) == Sample(messages=chat)
    asked = {"text": "a", "label": "b"}
    assert to_sample(asked, recipe()) == Sample(messages=chat)
    assert to_sample(asked, recipe("sequence_classification")) == Sample(text="a", label="b")
    assert to_sample({"text": "a", "label": 1}, recipe("sequence_classification")).label == "1"
    assert to_sample({"text": "a"}, recipe()) == Sample(text="a")
    assert to_sample({"body": "a"}, recipe(columns={"text": "body"})) == Sample(text="a")
    system = [{"role": "system", "content": "s"}, *chat]
    assert to_sample({"messages": chat}, recipe(system="s")) == Sample(messages=system)
    assert to_sample({"messages": system}, recipe(system="other")) == Sample(messages=system)
    assert to_sample(asked, recipe(system="s")) == Sample(messages=system)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"question": "a"}, "no known column"),
        ({"text": None}, "no text"),
        ({"text": 5}, "no text"),
        ({"text": "  "}, "empty"),
        ({"text": "a", "label": None}, "no label"),
        ({"messages": []}, "no messages"),
        ({"messages": "hi"}, "no messages"),
        ({"messages": ["hi"]}, "bad message"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "bad message"),
        ({"messages": [{"role": "user", "content": None}]}, "bad message"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no answer"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no question"),
    ],
)
def test_rows_that_cannot_be_used(columns: dict[str, Any], reason: str):
    with pytest.raises(Unusable) as caught:
        to_sample(columns, recipe())
    assert caught.value.reason == reason


def test_lengths_are_those_before_segmenting():
    limits = {"clean": [steps.Characters(min=4, max=6), steps.Segment()]}
    assert to_sample({"text": "人工智能世界"}, recipe(**limits)).text == "人工智能 世界"
    for text, reason in [
        ("人工智", "characters: too few"),
        ("人工智能世界的", "characters: too many"),
    ]:
        with pytest.raises(Unusable, match=reason):
            to_sample({"text": text}, recipe(**limits))


def test_unknown_labels():
    with pytest.raises(Unusable, match="unknown label"):
        to_sample({"text": "a", "label": "x"}, recipe("sequence_classification", labels=["y", "z"]))
    with pytest.raises(Unusable, match="no label"):
        to_sample({"text": "a"}, recipe("sequence_classification"))
