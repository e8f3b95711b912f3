"""From samples to token ids and labels, on a tokenizer of whole words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from adapters.light_tokenizer import LightTokenizer
from adapters.tokenizer import load_tokenizer
from launcher.prepare.rendering import Cut, Rendered, render, render_chat
from launcher.prepare.rendering.written import Chat
from launcher.prepare.shapes import Sample
from launcher.prepare.unusable import Unusable
from recipes.base import Base
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.train import Train
from support import tiny
from trainer.shards import IGNORED

light = LightTokenizer.of
PLAIN = Recipe(
    name="r", base=Base(source="b"), data=Data(train=[Source(path="a.jsonl")]), train=Train(steps=1)
)


def recipe(length: int = 64, too_long: str = "set_aside", task: str = "causal_lm") -> Recipe:
    data = dataclasses.replace(PLAIN.data, sequence_length=length, too_long=too_long)
    return dataclasses.replace(PLAIN, data=data, task=task)


@pytest.fixture(scope="module")
def tokenizer(llama: Path) -> Any:
    return load_tokenizer(llama)


def chat(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    first = [{"role": "system", "content": system}] if system is not None else []
    return [*first, *({"role": roles[n % 2], "content": text} for n, text in enumerate(turns))]


def spoken(tokenizer: Any, rendered: Rendered) -> list[str]:
    return [tokenizer.decode([label]) for label in rendered.labels if label != IGNORED]


def test_only_the_assistant_is_supervised_to_the_end_of_its_turn(tokenizer: Any):
    rendered = render_chat(light(tokenizer), chat("w1 w2", "w3", "w4", "w5 w6"))
    text = "<|user|> w1 w2 <|end|> <|assistant|> w3 <|end|> <|user|> w4 <|end|> <|assistant|>"
    assert tokenizer.decode(rendered.input_ids) == f"{text} w5 w6 <|end|>"
    assert spoken(tokenizer, rendered) == ["w3", "<|end|>", "w5", "w6", "<|end|>"]
    assert rendered.supervised == 5
    for token, label in zip(rendered.input_ids, rendered.labels, strict=True):
        assert label in (token, IGNORED)


def test_a_template_that_marks_the_assistant_is_believed(tokenizer: Any, llama: Path):
    marked = load_tokenizer(llama)
    marked.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|> {% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }} <|end|>{% endgeneration %} "
        "{% else %}{{ m.content }} <|end|> {% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    messages = chat("w1 w2", "w3", "w4", "w5 w6")
    assert render_chat(light(marked), messages) == render_chat(light(tokenizer), messages)
    messages[1]["train"] = False
    assert spoken(marked, render_chat(light(marked), messages)) == ["w5", "w6", "<|end|>"]
    assert render_chat(light(marked), messages) == render_chat(light(tokenizer), messages)


def test_a_template_that_hides_an_answer_is_refused(llama: Path):
    odd = load_tokenizer(llama)
    odd.chat_template = (
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }} {% endif %}"
        "{% endfor %}"
    )
    with pytest.raises(Unusable, match="hides an answer: leaves it out: message 1"):
        render_chat(light(odd), chat("w1", "w2", "w3", "w4"))
    odd.chat_template = "{% for m in messages %}{{ m.content }} {{ m.content }} {% endfor %}"
    with pytest.raises(Unusable, match="writes it more than once: message 1"):
        render_chat(light(odd), chat("w1", "w2"))


def test_plain_text_is_supervised_but_for_its_first_token(tokenizer: Any):
    [rendered] = render(light(tokenizer), Sample(text="w1 w2 w3"), recipe())
    assert tokenizer.decode(rendered.input_ids) == "w1 w2 w3 <|end|>"
    assert rendered.labels == [IGNORED, *rendered.input_ids[1:]]


def test_of_a_prompt_and_a_completion_the_completion_is_supervised(tokenizer: Any):
    [rendered] = render(light(tokenizer), Sample(prompt="w1 w2 ", text="w3 w4"), recipe())
    assert tokenizer.decode(rendered.input_ids) == "w1 w2 w3 w4 <|end|>"
    assert spoken(tokenizer, rendered) == ["w3", "w4", "<|end|>"]


def test_a_preference_is_two_sequences(tokenizer: Any):
    sample = Sample(messages=chat("w1", "w2"), rejected=chat("w1", "w3 w4"))
    chosen, rejected = render(light(tokenizer), sample, recipe())
    assert spoken(tokenizer, chosen) == ["w2", "<|end|>"]
    assert spoken(tokenizer, rejected) == ["w3", "w4", "<|end|>"]
    plain = Sample(prompt="w1 ", text="w2", rejected="w3")
    assert [spoken(tokenizer, side) for side in render(light(tokenizer), plain, recipe())] == [
        ["w2", "<|end|>"],
        ["w3", "<|end|>"],
    ]
    with pytest.raises(Unusable, match="too long"):
        render(light(tokenizer), sample, recipe(length=6))


def test_a_sample_that_is_too_long_is_set_aside_or_cut(tokenizer: Any):
    sample = Sample(messages=chat("w1 w2", "w3 w4", system="w0"))
    [whole] = render(light(tokenizer), sample, recipe(length=11))
    assert whole.cuts == ()
    with pytest.raises(Unusable, match="too long: 11 tokens"):
        render(light(tokenizer), sample, recipe(length=10))
    [cut] = render(light(tokenizer), sample, recipe(length=9, too_long="truncate"))
    assert cut.input_ids == whole.input_ids[:9]
    assert spoken(tokenizer, cut) == ["w3"]
    assert cut.cuts == (Cut(how="cut at the end", tokens=2),)
    [cut] = render(light(tokenizer), sample, recipe(length=9, too_long="truncate_left"))
    assert cut.input_ids == whole.input_ids[2:]
    assert cut.cuts == (Cut(how="cut at the beginning", tokens=2),)
    with pytest.raises(Unusable, match="no supervised token"):
        render(light(tokenizer), sample, recipe(length=8, too_long="truncate"))


def test_first_turns_are_left_out_before_a_turn_is_torn(tokenizer: Any):
    sample = Sample(messages=chat("w1", "w2", "w3", "w4", "w5", "w6", system="w0"))
    [cut] = render(light(tokenizer), sample, recipe(length=16, too_long="truncate_left"))
    last = render_chat(light(tokenizer), chat("w3", "w4", "w5", "w6", system="w0"))
    assert cut == dataclasses.replace(cut, input_ids=last.input_ids, labels=last.labels)
    assert cut.cuts == (Cut(how="first turns left out", tokens=6),)
    [cut] = render(light(tokenizer), sample, recipe(length=8, too_long="truncate_left"))
    assert cut.cuts[1:] == (Cut(how="cut at the beginning", tokens=1),)


def test_a_chat_is_split_at_turns(tokenizer: Any):
    turns = [f"w{number}" for number in range(10)]
    turns[5] = "w5 " * 20
    sample = Sample(messages=chat(*turns, system="w50"))
    parts = render(light(tokenizer), sample, recipe(length=16, too_long="split"))
    assert [tokenizer.decode(part.input_ids) for part in parts] == [
        tokenizer.decode(render_chat(light(tokenizer), messages).input_ids)
        for messages in (chat(*turns[:4], system="w50"), chat(*turns[6:], system="w50"))
    ]
    whole = render_chat(light(tokenizer), sample.messages or [])
    assert whole.supervised == sum(part.supervised for part in parts) + 21
    assert parts[0].cuts == (
        Cut(how="split at turns", tokens=0),
        Cut(how="turn left out", tokens=28),
    )
    with pytest.raises(Unusable, match="too long"):
        render(light(tokenizer), sample, recipe(length=8, too_long="split"))


@pytest.mark.parametrize("too_long", ["set_aside", "truncate", "truncate_left", "split"])
def test_a_chat_of_many_turns_takes_few_writings(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, too_long: str
):
    """As records of agents have them. With one for each answer, however far it is beyond what
    fits, 400 messages took 20 seconds."""
    turns = [f"w{number % 90}" for number in range(400)]
    sample = Sample(messages=chat(*turns, system="w50"))
    written = []
    write = Chat._write
    monkeypatch.setattr(
        Chat, "_write", lambda self, **how: written.append(len(self.messages)) or write(self, **how)
    )
    asked = recipe(length=64, too_long=too_long)
    if too_long == "set_aside":
        with pytest.raises(Unusable, match="1203 tokens"):
            render(light(tokenizer), sample, asked)
    else:
        parts = render(light(tokenizer), sample, asked)
        ends = [part.labels.count(tokenizer.eos_token_id) for part in parts]
        assert ends == [10] * (20 if too_long == "split" else 1)
    assert sum(written) < {"split": 10_000}.get(too_long, 2_000)


def test_a_text_is_split_into_pieces(tokenizer: Any):
    text = " ".join(f"w{number}" for number in range(20))
    parts = render(light(tokenizer), Sample(text=text), recipe(length=8, too_long="split"))
    assert [len(part.input_ids) for part in parts] == [8, 8, 5]
    joined = " ".join(tokenizer.decode(part.input_ids) for part in parts)
    assert joined == f"{text} <|end|>"
    assert all(part.labels == [IGNORED, *part.input_ids[1:]] for part in parts)
    lines = "w1 w2 w3 w4 w5\nw6 w7 w8 w9"
    first, _ = render(light(tokenizer), Sample(text=lines), recipe(length=8, too_long="split"))
    assert tokenizer.decode(first.input_ids) == "w1 w2 w3 w4 w5"
    exact = " ".join(["w1"] * 7)
    [whole] = render(light(tokenizer), Sample(text=exact), recipe(length=8, too_long="split"))
    assert whole.cuts == ()


def test_a_special_token_in_what_is_said_is_not_read_as_one(tokenizer: Any):
    for messages in (chat("w1 <|end|> w2", "w3"), chat("w1", "<|assistant|>")):
        with pytest.raises(Unusable, match="special token in text"):
            render_chat(light(tokenizer), messages)
    [plain] = render(light(tokenizer), Sample(text="w1 <|end|> w2"), recipe())
    assert len(plain.input_ids) == 4


def test_a_text_to_classify_may_be_a_pair():
    pairs = tiny.make_pair_tokenizer()
    task = "sequence_classification"
    [alone] = render(light(pairs), Sample(text="w1 w2", label="a"), recipe(task=task))
    assert pairs.decode(alone.input_ids) == "<|user|> w1 w2 <|end|>"
    assert (alone.labels, alone.token_types) == ([], [])
    sample = Sample(text="w1 w2", text_pair="w3 w4 w5", label="a")
    [pair] = render(light(pairs), sample, recipe(task=task))
    assert pairs.decode(pair.input_ids) == "<|user|> w1 w2 <|end|> w3 w4 w5 <|end|>"
    assert pair.token_types == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(Unusable, match="too long: 8 tokens"):
        render(light(pairs), sample, recipe(length=7, task=task))
    [cut] = render(light(pairs), sample, recipe(length=7, too_long="truncate", task=task))
    assert pairs.decode(cut.input_ids) == "<|user|> w1 w2 <|end|> w3 w4 <|end|>"
    assert cut.cuts == (Cut(how="cut at the end", tokens=1),)
    [cut] = render(light(pairs), sample, recipe(length=7, too_long="truncate_left", task=task))
    assert pairs.decode(cut.input_ids) == "<|user|> w1 w2 <|end|> w4 w5 <|end|>"
    assert cut.cuts == (Cut(how="cut at the beginning", tokens=1),)
