"""What `shoal check` says of the shapes of rows and of prompts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from recipes.data import Data, Source
from recipes.data.prompts import fill, variables
from recipes.evaluate import Evaluate
from recipes.recipe import all_problems
from support import jobs


def told(task: str = "causal_lm", choices: Any = (), **data: Any) -> list[str]:
    train = data.pop("train", [Source(path="/a.jsonl")])
    chosen = jobs.recipe(
        data=Data(train=train, **data),
        evaluate=Evaluate(generate=0, before=False, choices=list(choices)),
    )
    return [str(problem) for problem in all_problems(dataclasses.replace(chosen, task=task))]


def test_variables_are_names_of_columns():
    assert variables("{a} {b.c}{a} {{d}} {评论}") == ["a", "b.c", "评论"]
    assert fill("{a}{{b}} {c}", {"a": "1", "c": "{x}"}.__getitem__) == "1{b} {x}"
    for text in ("{", "}", "{}", "{a[0]}", "{a!r}", "{a:>5}", "{ }"):
        with pytest.raises(ValueError):
            variables(text)


def test_prompts():
    assert told(prompt=["Is {text} good?", "{text}?"], answer="It is {label}.") == []
    [broken] = told(prompt=["{text}", "{text"])
    assert broken.startswith("data.prompt[1] = '{text': cannot be filled in: ")
    [same] = told(prompt=["Say something."])
    assert "names no column" in same
    [alone] = told(answer="{label}")
    assert alone.startswith("data.answer = '{label}': answers nothing")
    [chats] = told(prompt=["{text}"], format="alpaca")
    assert "data.format = alpaca: its rows say themselves what is asked" in chats
    source = Source(path="/a", format="messages")
    [chats] = told(prompt=["{text}"], train=[source])
    assert "data.train[0].format = messages" in chats


def test_columns_are_named_by_what_shoal_knows():
    assert told(columns={"text": "评论", "label": "标签"}) == []
    [typing_error] = told(columns={"txt": "review"})
    assert typing_error.startswith(
        "data.columns.txt = 'review': is no name that shoal knows a column by; allowed: text, "
    )
    [of_rows] = told(train=[Source(path="/a", columns={"conversations": "dialog"})])
    assert of_rows.startswith("data.train[0].columns.conversations = 'dialog'")
    assert "messages" in of_rows
    # A prompt names what it will.
    names = {"stars": "rating", "answer": "reply", "place": "city"}
    [other] = told(prompt=["{stars}"], columns=names)
    assert other.startswith("data.columns.place")
    assert told(prompt=["{stars}", "{place}?"], columns=names) == []


def test_shapes_and_tasks():
    task = "sequence_classification"
    assert told(task, format="text_pair") == []
    [chat] = told(task, format="messages")
    assert "needs a text and a label in each row" in chat
    [chat] = told(task, train=[Source(path="/a", format="text")])
    assert chat.startswith("data.train[0].format = 'text'")
    assert len(told(task, prompt=["{text}"], chat_template="/a.jinja", system="s")) == 3
    [split] = told(task, too_long="split")
    assert split.startswith("data.too_long = 'split': a part of a text need not have the label")
    [pair] = told(format="text_pair")
    assert pair.endswith("Set data.prompt, with {text} and {text_pair} in it")
    assert told(format="text_pair", prompt=["{text} {text_pair}"]) == []
    assert told(format="preference") == []
    [choices] = told(format="preference", choices=["a", "b"], held_out_fraction=0.1)
    assert choices.startswith("evaluate.choices")
