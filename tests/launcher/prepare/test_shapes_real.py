"""Real reviews, English and Chinese, in every shape, with the tokenizer of SmolLM2."""

from __future__ import annotations

import dataclasses
import itertools
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from adapters.light_tokenizer import LightTokenizer, leave_tokenizer, left_tokenizer
from adapters.tokenizer import load_tokenizer
from launcher.prepare.rendering import render, render_chat
from launcher.prepare.shapes import Sample, to_sample
from launcher.samples import catalogue
from recipes.base import Base
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.storage import default_cache
from recipes.train import Train
from support.chat_styles import by_prefixes
from trainer.shards import IGNORED

pytestmark = pytest.mark.slow

light = LightTokenizer.of
RECIPE = Recipe(
    name="r", base=Base(source="b"), data=Data(train=[Source(path="a.jsonl")]), train=Train(steps=1)
)


def folder_of(name: str) -> Path:
    catalogue.make(name, Path(default_cache()), lambda _: None)
    return catalogue.path(name, Path(default_cache()))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(folder_of("smollm2-135m-instruct"))


@pytest.fixture(scope="module")
def reviews() -> list[tuple[str, str]]:
    """300 texts with their label of each language, none of them twice."""
    found: list[tuple[str, str]] = []
    with (folder_of("movie_reviews") / "train_all.jsonl").open(encoding="utf-8") as lines:
        chats = (json.loads(line)["messages"] for line in islice(lines, 300))
        found += [(chat[-2]["content"], chat[-1]["content"]) for chat in chats]
    with (folder_of("reviews_zh") / "reviews.jsonl").open(encoding="utf-8") as lines:
        rows = {row["text"]: row["label"] for row in map(json.loads, islice(lines, 600))}
        found += [(text, label) for text, label in islice(rows.items(), 300) if text.strip()]
    assert len(found) > 590
    return found


def test_a_review_is_the_same_sample_in_every_shape(reviews: list[tuple[str, str]]):
    for text, label in reviews:
        asked, answered = (
            {"role": "user", "content": text},
            {"role": "assistant", "content": label},
        )
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": label}]
        rows: list[dict[str, Any]] = [
            {"messages": [asked, answered]},
            {"conversations": turns},
            {"instruction": text, "output": label},
            {"prompt": [asked], "completion": [answered]},
            {"text": text, "label": label},
            {"text": text, "labels": [label]},
        ]
        want = Sample(messages=[asked, answered])
        assert [to_sample(row, RECIPE) for row in rows] == [want] * len(rows)
        chosen = to_sample({"prompt": text, "chosen": [answered], "rejected": "no"}, RECIPE)
        assert dataclasses.replace(chosen, rejected=None) == want


def test_what_is_learnt_of_real_chats_is_what_a_prefix_lacks(
    tokenizer: Any, reviews: list[tuple[str, str]]
):
    """One, two and five turns, with and without a system message."""
    texts = [text for review in reviews for text in review]
    done = 0
    for turns in (1, 2, 5):
        for first in range(0, len(texts) - 2 * turns, 2 * turns * 3):
            chat = [
                {"role": ("user", "assistant")[n % 2], "content": text}
                for n, text in enumerate(texts[first : first + 2 * turns])
            ]
            if first % 4:
                chat = [{"role": "system", "content": "Be brief."}, *chat]
            rendered = render_chat(light(tokenizer), chat)
            assert rendered.labels == by_prefixes(tokenizer, chat)
            done += 1
    assert done > 300


def test_long_texts_are_split_at_sentences_and_nothing_is_lost(
    tokenizer: Any, reviews: list[tuple[str, str]]
):
    data = dataclasses.replace(RECIPE.data, sequence_length=256, too_long="split")
    recipe = dataclasses.replace(RECIPE, data=data)
    whole = "\n".join(text for text, _ in reviews)
    parts = render(light(tokenizer), Sample(text=whole), recipe)
    ids = [token for part in parts for token in part.input_ids]
    assert ids[:-1] == tokenizer(whole)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    assert all(len(part.input_ids) <= 256 for part in parts)
    assert sum(part.supervised for part in parts) == len(ids) - len(parts)
    assert all(part.labels[0] == IGNORED for part in parts)
    ends = [tokenizer.decode(part.input_ids)[-1:] for part in parts]
    assert sum(end in '\n.!?。！？…"”’' for end in ends) > 0.5 * len(parts)


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "multilingual-e5-small"])
def test_a_tokenizer_that_was_left_says_what_transformers_own_does(
    tmp_path: Path, name: str, reviews: list[tuple[str, str]]
):
    leave_tokenizer(tmp_path, folder_of(name))
    whole, left = load_tokenizer(folder_of(name)), left_tokenizer(tmp_path).backend
    texts = [text for text, _ in reviews]
    expected = whole(texts, return_offsets_mapping=True, verbose=False)
    assert left.ids_of(texts, special=True) == expected["input_ids"]
    for text, offsets in zip(texts, expected["offset_mapping"], strict=True):
        assert left.encode(text, special=True).offsets == offsets
    for side in ("left", "right"):
        whole.truncation_side = side
        for pair in itertools.pairwise(texts):
            cut = whole(*pair, truncation=True, max_length=64)
            assert left.pair(*pair, 64, side) == (cut["input_ids"], cut.get("token_type_ids", []))
